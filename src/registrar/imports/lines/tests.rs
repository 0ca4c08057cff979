use proptest::prelude::*;

use super::*;

fn read(format: Format, octets: &[u8]) -> (Vec<Result<Line, Fault>>, Result<(), Fault>) {
    read_in(format, octets, usize::MAX)
}

/// Reads it in parts of so many octets.
fn read_in(format: Format, octets: &[u8], part: usize) -> (Vec<Result<Line, Fault>>, Result<(), Fault>) {
    let mut lines = Lines::new(format);
    let mut found = Vec::new();
    for part in octets.chunks(part) {
        if let Err(fault) = lines.push(part, |line| found.push(line)) {
            return (found, Err(fault));
        }
    }
    let end = lines.finish(|line| found.push(line));
    (found, end)
}

fn csv(text: &str) -> Vec<Result<Line, Fault>> {
    let (found, end) = read(Format::Csv, text.as_bytes());
    assert_eq!(end, Ok(()), "{text}");
    found
}

fn fatal(text: &[u8]) -> (u64, Refusal) {
    let fault = read(Format::Csv, text).1.expect_err("the list is read");
    (fault.line, fault.refusal)
}

/// Line, column and refusal of each fault; the names of the others.
fn told(found: &[Result<Line, Fault>]) -> Vec<String> {
    let line = |line: &Result<Line, Fault>| match line {
        Ok(line) => format!("{} {}", line.number, line.name),
        Err(fault) => format!("{} {}: {}", fault.line, fault.column, fault.refusal),
    };
    found.iter().map(line).collect()
}

#[test]
fn csv_is_read_with_bom_crlf_quotes_and_without_a_last_line_break() {
    let found = csv(
        "\u{feff}name,attr.site,token,attr.note\r\nsensor-1,north,true,\"a \"\"b\"\", c\"\r\n\r\nsensor-2,,false,\n\"sensor-3\",x,,\"\"",
    );
    let [one, two, three] = &found[..] else { panic!("{found:?}") };
    let one = one.as_ref().unwrap();
    assert_eq!((one.number, one.name.as_str(), one.token), (2, "sensor-1", true));
    assert_eq!(one.attributes, BTreeMap::from([("site".into(), "north".into()), ("note".into(), "a \"b\", c".into())]));
    let two = two.as_ref().unwrap();
    assert_eq!((two.number, two.token, two.attributes.len()), (4, false, 0));
    assert_eq!(three.as_ref().unwrap().attributes, BTreeMap::from([("site".into(), "x".into())]));
}

#[test]
fn json_lines_are_read() {
    let text =
        "\u{feff}{\"name\":\"a\"}\r\n\n{\"name\":\"b\",\"attributes\":{\"k\":\"v\"},\"endorsement_key\":null,\"token\":true}";
    let (found, end) = read(Format::JsonLines, text.as_bytes());
    assert_eq!((told(&found), end), (vec!["1 a".to_owned(), "3 b".to_owned()], Ok(())));
    assert!(found[1].as_ref().unwrap().token);
}

#[test]
fn a_bad_line_is_told_and_harms_no_other() {
    let long = "x".repeat(MAX_LINE + 1);
    let value = "y".repeat(300);
    let lines = [
        "name,attr.a",
        "a,1",
        "",
        "b,1,2",
        "b",
        "../x,1",
        "c\0,1",
        "d\x1b[2J,1",
        "e,\"open",
        "f,\"x\"y",
        "g,x\"y",
        "A,1",
        "h,\u{7}",
        &format!("i,{value}"),
        &long,
        "j,\r1",
        "k,ok",
    ];
    let found = csv(&lines.join("\n"));
    let expected = [
        "2 a",
        "4 : malformed_request",
        "5 : malformed_request",
        "6 name: invalid_name",
        "7 name: invalid_name",
        "8 name: invalid_name",
        "9 : malformed_request",
        "10 : malformed_request",
        "11 : malformed_request",
        "12 name: name_taken",
        "13 attributes: invalid_value",
        "14 attributes: invalid_value",
        "15 : body_too_large",
        "16 attributes: invalid_value",
        "17 k",
    ];
    assert_eq!(told(&found), expected);
    let (found, _) = read(Format::Csv, b"name\n\xff\xfe\nz");
    assert_eq!(told(&found), ["2 : malformed_request", "3 z"]);
}

#[test]
fn a_bad_object_is_told() {
    let deep = "[".repeat(10_000);
    for (text, expected) in [
        ("{}", "1 : malformed_request"),
        ("[]", "1 : malformed_request"),
        ("{\"name\":\"a\",\"role\":\"owner\"}", "1 : malformed_request"),
        ("{\"name\":\"a\",\"name\":\"b\"}", "1 : malformed_request"),
        ("{\"name\":\"a\",\"attributes\":{\"k\":\"1\",\"k\":\"2\"}}", "1 : malformed_request"),
        ("{\"name\":\"a\",\"attributes\":{\"k\":1}}", "1 : malformed_request"),
        ("{\"name\":\"a\",\"attributes\":{\"\":\"1\"}}", "1 attributes: invalid_value"),
        ("{\"name\":\"a\\u0000\"}", "1 name: invalid_name"),
        ("{\"name\":\"a\"} x", "1 : malformed_request"),
        ("{\"name\":\"a\",\"endorsement_key\":\"zz\"}", "1 endorsement_key: invalid_value"),
        (&deep, "1 : malformed_request"),
    ] {
        let (found, _) = read(Format::JsonLines, text.as_bytes());
        assert_eq!(told(&found), [expected], "{text}");
        let Some(Err(fault)) = found.first() else { panic!("{text}") };
        assert!(fault.text.chars().count() < 200 && !fault.text.contains(char::is_control), "{}", fault.text);
    }
    let many: Vec<_> = (0..33).map(|key| format!("\"{key}\":\"\"")).collect();
    let text = format!("{{\"name\":\"a\",\"attributes\":{{{}}}}}", many.join(","));
    assert_eq!(told(&read(Format::JsonLines, text.as_bytes()).0), ["1 attributes: invalid_value"]);
}

#[test]
fn a_head_that_cannot_be_read_ends_it() {
    let many = format!("name{}", ",attr.a".repeat(1_000_000));
    let wide = (0..MAX_COLUMNS).map(|column| format!(",attr.{column}")).collect::<Vec<_>>().concat();
    for (text, refusal) in [
        (&b""[..], Refusal::MalformedRequest),
        (b"\n\n", Refusal::MalformedRequest),
        (b"site\na", Refusal::MalformedRequest),
        (b"name,attr.\na", Refusal::MalformedRequest),
        (b"name,name\na,b", Refusal::MalformedRequest),
        (b"name,attr.a,attr.a\na,b,c", Refusal::MalformedRequest),
        (b"name,\"attr\na", Refusal::MalformedRequest),
        (b"\xffname\na", Refusal::MalformedRequest),
        (format!("name{wide}").as_bytes(), Refusal::MalformedRequest),
        (many.as_bytes(), Refusal::BodyTooLarge),
    ] {
        assert_eq!(fatal(text).1, refusal, "{:?}", text.get(..20));
    }
    let fault = read(Format::Csv, b"name,\x1b[2Jx\na").1.unwrap_err();
    assert!(!fault.column.contains(char::is_control), "{fault:?}");
}

#[test]
fn there_are_at_most_so_many_lines() {
    let mut text = "name\n".to_owned();
    text.push_str(&"\n".repeat(usize::try_from(MAX_LINES).unwrap() - 1));
    assert_eq!(read(Format::Csv, text.as_bytes()).1, Ok(()));
    text.push('\n');
    assert_eq!(fatal(text.as_bytes()), (MAX_LINES + 1, Refusal::BodyTooLarge));
}

#[test]
fn one_endorsement_key_is_of_one_device() {
    let key = rcgen::KeyPair::generate().unwrap();
    let key = hex::encode(rcgen::PublicKeyData::subject_public_key_info(&key));
    let found = csv(&format!("name,endorsement_key\na,{key}\nb,{key}\nc,\nd,00"));
    let expected = ["2 a", "3 endorsement_key: hardware_of_another_device", "4 c", "5 endorsement_key: invalid_value"];
    assert_eq!(told(&found), expected);
    assert!(found[0].as_ref().unwrap().hardware.is_some() && found[2].as_ref().unwrap().hardware.is_none());
}

proptest! {
    /// Whatever comes, in whatever parts: the same lines, and no panic.
    #[test]
    fn parts_do_not_matter(octets in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b','), Just(b'"'), Just(b'a')], 0..300), part in 1_usize..20) {
        let octets = [&b"name,attr.x\n"[..], &octets].concat();
        for format in [Format::Csv, Format::JsonLines] {
            prop_assert_eq!(read_in(format, &octets, part), read(format, &octets));
        }
    }

    /// What a stranger writes is read as it was written.
    #[test]
    fn what_the_csv_crate_writes_is_read(values in prop::collection::vec("[ -~äß€]{1,40}", 1..20)) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["attr.v", "name"]).unwrap();
        for (number, value) in values.iter().enumerate() {
            writer.write_record([value.as_str(), &format!("d{number}")]).unwrap();
        }
        let (found, end) = read(Format::Csv, &writer.into_inner().unwrap());
        prop_assert_eq!(end, Ok(()));
        let read: Vec<_> = found.into_iter().map(|line| line.unwrap().attributes["v"].clone()).collect();
        prop_assert_eq!(read, values);
    }
}
