//! Texts that mean harm, and what is said of texts that are wrong.

#![expect(clippy::expect_used, reason = "a test that cannot go on ends")]

use fleetmark_policy::{Finding, MAX_POLICIES, MAX_TEXT, Set, keeps_an_owner, keeps_an_owner_in};

fn findings(text: &str) -> Vec<Finding> {
    Set::compile(text).expect_err("a text that is wrong")
}

/// Runs on a stack of the size that the server's workers have.
fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).expect("a thread").join().expect("no panic");
}

fn when(condition: &str) -> String {
    format!("permit (principal, action, resource) when {{ {condition} }};")
}

#[test]
fn deep_texts_are_refused_before_they_use_up_the_stack() {
    on_a_small_stack(|| {
        let n = 40_000;
        let deep = [
            when(&format!("{}true{}", "(".repeat(n), ")".repeat(n))),
            when(&"(".repeat(n)),
            when(&format!("{}1{} == 1", "[".repeat(n), "]".repeat(n))),
            when(&format!("{}1{} == 1", "{a:".repeat(n), "}".repeat(n))),
            when(&format!("{}true", "!".repeat(n))),
            when(&format!("{}1 == 1", "-".repeat(n))),
            when(&format!("{}true", "true && ".repeat(n / 2))),
            when(&format!("{}true", "true || ".repeat(n / 2))),
            when(&format!("1{} == 1", " + 1".repeat(n))),
            when(&format!("1{} == 1", " * 1".repeat(n))),
            when(&format!("context{} == 1", ".a".repeat(n))),
            when(&format!("context has a{}", ".a".repeat(n))),
            when(&format!("context{} == 1", "[\"a\"]".repeat(n / 2))),
            when(&format!("context{}", ".a()".repeat(n))),
            when(&format!("{}true", "if true then true else ".repeat(n / 8))),
            when(&format!("{}true{}", "if ".repeat(n), " then true else true".repeat(9))),
            format!("permit (principal, action, resource) {};", "when { true && true } ".repeat(n / 8)),
        ];
        for text in deep {
            assert!(!findings(&text).is_empty(), "{}", text.get(..80).unwrap_or(&text));
            for hidden in ["//\r", "// \"\n", "\"\\\"//\"\r"] {
                assert!(!findings(&format!("{hidden}{text}")).is_empty(), "after {hidden:?}");
            }
        }
    });
}

/// At the limits: compiled, decided about and dropped on a small stack. Unoptimised, some of these decisions end in Cedar's
/// error that the stack is too small; that they end is what counts.
#[test]
fn the_deepest_text_that_is_allowed_fits_the_stack() {
    on_a_small_stack(|| {
        let brackets = when(&format!("{}true{}", "(".repeat(18), ")".repeat(18)));
        let ifs = when(&format!("{}true", "if context.time > 1 then true else ".repeat(18)));
        let chain = when(&format!("{}true", "true && ".repeat(200)));
        let sum = when(&format!("context.time{} > 1", " + 1".repeat(198)));
        let both = when(&format!("{}true{}{}", "(".repeat(18), " && true".repeat(200), ")".repeat(18)));
        let nots = when(&format!("{}true{}", "!(".repeat(18), ")".repeat(18)));
        for text in [brackets, ifs, chain, sum, both, nots] {
            let set = Set::compile(&text).unwrap_or_else(|findings| panic!("{findings:?}"));
            drop(keeps_an_owner(&set));
        }
    });
}

#[test]
fn strings_and_comments_do_not_count_as_depth() {
    let brackets = "([{".repeat(100);
    let text = format!("// {brackets} \" if if\n@id(\"a\") @note(\"{brackets} \\\" ;\")\n{}", when("true"));
    assert!(Set::compile(&text).is_ok());
}

#[test]
fn sizes_are_limited() {
    let message = findings(&" ".repeat(MAX_TEXT + 1)).remove(0).message;
    assert!(message.contains("octets"), "{message}");
    assert!(Set::compile(&" ".repeat(MAX_TEXT)).is_ok());
    let policy = "permit(principal,action,resource);\n";
    let message = findings(&policy.repeat(MAX_POLICIES + 1)).remove(0).message;
    assert!(message.contains("1001 policies"), "{message}");
}

#[test]
fn findings_say_where_and_what() {
    let table = [
        ("permit (principal, action, resource)", (1, 37), None),
        ("permit (\n  principal, akshun, resource);", (2, 14), None),
        ("permit (principal, action == Action::\"Fly\", resource);", (1, 30), Some("policy0")),
        ("\n@id(\"x\")\npermit (principal, action, resource)\nwhen { context.tiem > 5 };", (4, 8), Some("x")),
        ("@id(\"x\") permit (principal is Devise, action, resource);", (1, 31), Some("x")),
        ("@id(\"x\") permit (principal in Role::\"ownr\", action, resource);", (1, 31), Some("x")),
        (
            "@id(\"x\") permit (principal is Device, action, resource) when { principal.standing == Standing::\"god\" };",
            (1, 86),
            Some("x"),
        ),
        (
            "@id(\"x\") permit (principal is Device, action, resource) when { principal.getTag(\"a\") == \"b\" };",
            (1, 64),
            Some("x"),
        ),
        ("@id(\"x\") permit (principal, action, resource) when { context.source == ip(\"10.0.0.1\") };", (1, 54), Some("x")),
        (
            "@id(\"x\") permit (principal, action, resource);\n@id(\"x\") forbid (principal, action, resource);",
            (2, 5),
            Some("x"),
        ),
        ("@id(\"\") permit (principal, action, resource);", (0, 0), Some("")),
        (
            "@id(\"policy1\") permit (principal, action, resource);\nforbid (principal, action, resource);",
            (1, 5),
            Some("policy1"),
        ),
        ("permit (principal == ?principal, action, resource);", (0, 0), Some("policy0")),
    ];
    for (text, place, policy) in table {
        let all = findings(text);
        let finding = all.first().expect("a finding");
        assert_eq!(((finding.line, finding.column), finding.policy.as_deref()), (place, policy), "{text}\n{all:?}");
        assert!(!finding.message.is_empty());
    }
}

#[test]
fn every_finding_is_told_at_once() {
    let text = "@id(\"a\") permit (principal, action, resource) when { context.x };\n@id(\"b\") permit (principal is Nobody, action, resource);";
    let all = findings(text);
    let about: Vec<_> = all.iter().filter_map(|finding| finding.policy.as_deref()).collect();
    assert!(about.contains(&"a") && about.contains(&"b"), "{all:?}");
}

#[test]
fn owners_may_not_lock_themselves_out() {
    let owners = "permit (principal in Role::\"owner\", action, resource)";
    let refused = [
        "// Nothing.\n".to_owned(),
        "permit (principal == Operator::\"alice\", action, resource);".to_owned(),
        "permit (principal in Role::\"owner\", action == Action::\"Backup\", resource);".to_owned(),
        format!("{owners}; forbid (principal, action, resource);"),
        format!("{owners} when {{ context has source && context.source.isInRange(ip(\"10.0.0.0/8\")) }};"),
        format!("{owners}; forbid (principal, action, resource) when {{ context has source && context.source.isIpv6() }};"),
        format!("{owners} when {{ context.weekday != 7 }};"),
        format!("{owners} unless {{ context.minute_of_day >= 120 && context.minute_of_day < 136 }};"),
        format!("{owners} when {{ context has protocol }};"),
        format!("{owners}; forbid (principal, action, resource) when {{ context.time + 9223372036854775807 > 0 }};"),
    ];
    for text in refused {
        let set = Set::compile(&text).unwrap_or_else(|findings| panic!("{text}: {findings:?}"));
        assert!(keeps_an_owner(&set).is_err(), "{text}");
    }
    let kept = Set::compile(&format!("{owners};")).expect("a set");
    assert!(keeps_an_owner(&kept).is_ok());
    let fleet = "default".parse().expect("a fleet");
    let forbids = Set::compile("@id(\"stop\") forbid (principal, action, resource);").expect("a set");
    let finding = keeps_an_owner_in(&kept, &fleet, &forbids).expect_err("owners are locked out");
    assert!(finding.message.contains("fleet/stop forbids it"), "{finding}");
    let devices = Set::compile("forbid (principal is Device, action, resource);").expect("a set");
    assert!(keeps_an_owner_in(&kept, &fleet, &devices).is_ok());
}
