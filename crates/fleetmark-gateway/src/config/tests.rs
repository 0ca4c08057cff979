use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("gateway.toml"), Path::new("/etc/fleetmark")).map_err(|error| error.to_string())
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = parse("dir = \"state\"").expect("config");
    assert_eq!(config.dir, Path::new("/etc/fleetmark/state"));
    assert_eq!(config.identity_dir(), Path::new("/etc/fleetmark/state/identity"));
    assert_eq!(config.verdicts.listen.to_string(), "unix:/run/fleetmark-gateway/verdict.sock");
    assert_eq!(config.metrics, "127.0.0.1:9181".parse().ok());
    assert!(config.servers.is_empty() && config.fleets.is_none() && config.proxies.is_empty());
}

#[test]
fn the_whole_file_is_read() {
    let config = parse(
        r#"
        dir = "/var/lib/fleetmark-gateway"
        servers = ["https://ca.example:8443", "https://ca2.example:8443"]
        fleets = ["default", "default", "pumps"]
        [log]
        format = "json"
        level = "info,fleetmark_gateway=debug"
        [verdict]
        listen = "unix:verdict.sock"
        max_requests = 7
        [metrics]
        listen = "none"
        [[proxy]]
        listen = "0.0.0.0:8883"
        upstream = "broker.example:1883"
        protocol = "mqtt"
        proxy_protocol = "v2"
        max_connections = 5
        max_handshakes = 6
        handshakes_per_second = 7
        address_handshakes_per_second = 0
        handshake_timeout = 8
        connect_timeout = 9
        idle_timeout = 10
        [[proxy]]
        listen = "[::]:8884"
        upstream = "[::1]:1883"
        handshake_burst = 11
        idle_timeout = 0
        "#,
    )
    .expect("config");
    assert_eq!(config.servers.len(), 2);
    assert_eq!(config.fleets.map(|fleets| fleets.len()), Some(2));
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.verdicts.listen, Place::Unix("/etc/fleetmark/verdict.sock".into()));
    assert_eq!((config.verdicts.max_requests, config.metrics), (7, None));
    let [first, second] = config.proxies.as_slice() else { panic!("two proxies") };
    assert_eq!((first.protocol.as_deref(), first.proxy_protocol), (Some("mqtt"), ProxyProtocol::V2));
    assert_eq!((first.max_connections, first.max_handshakes), (5, 6));
    assert_eq!((first.handshakes_per_second.get(), first.handshake_burst.get()), (7, 14));
    assert_eq!(first.address_handshakes_per_second, None);
    assert_eq!(first.handshake_timeout, Duration::from_secs(8));
    assert_eq!((first.connect_timeout, first.idle_timeout), (Duration::from_secs(9), Some(Duration::from_secs(10))));
    assert_eq!((second.handshake_burst.get(), second.idle_timeout), (11, None));
}

#[test]
fn what_is_wrong_is_refused_by_its_key() {
    let cases = [
        ("", "missing field `dir`"),
        ("dir = \"\"", "`dir`"),
        ("dir = 1", "invalid type"),
        ("dir = \"a\"\nspeed = 1", "unknown field `speed`"),
        ("dir = \"a\"\n[verdict]\nlissten = \"x\"", "unknown field `lissten`"),
        ("dir = \"a\"\n[[proxy]]\nlisten = \"[::]:1\"\nupstream = \"a:1\"\nx = 1", "unknown field `x`"),
        ("dir = \"a\"\nservers = [\"http://ca.example\"]", "`servers` is \"http://ca.example\""),
        ("dir = \"a\"\nfleets = []", "`fleets`"),
        ("dir = \"a\"\nfleets = [\"system\"]", "`fleets` is \"system\""),
        ("dir = \"a\"\n[log]\nlevel = \"lo,ud=x=y\"", "`log.level`"),
        ("dir = \"a\"\n[log]\nformat = \"xml\"", "unknown variant `xml`"),
        ("dir = \"a\"\n[verdict]\nlisten = \"0.0.0.0:9180\"", "`verdict.listen` is \"0.0.0.0:9180\""),
        ("dir = \"a\"\n[verdict]\nlisten = \"localhost:9180\"", "`verdict.listen`"),
        ("dir = \"a\"\n[verdict]\nmax_requests = 0", "`verdict.max_requests`"),
        ("dir = \"a\"\n[metrics]\nlisten = \"192.0.2.1:1\"", "`metrics.listen`"),
    ];
    for (text, expected) in cases {
        let error = parse(text).expect_err(text);
        assert!(error.contains(expected) && error.starts_with("gateway.toml: "), "{text}: {error}");
    }
    let long = format!("dir = \"a\"\n[verdict]\nlisten = \"unix:/{}\"", "x".repeat(100));
    assert!(parse(&long).expect_err("too long").contains("95 octets"));
    for line in [
        "listen = \"8883\"",
        "upstream = \"broker\"",
        "upstream = \":1883\"",
        "upstream = \"a:0\"",
        "upstream = \"a b:1\"",
        "protocol = \"MQTT 5\"",
        "proxy_protocol = \"v1\"",
        "max_connections = 0",
        "max_connections = -1",
        "handshakes_per_second = 1000001",
        "address_handshakes_per_second = -1",
        "handshake_timeout = 61",
        "connect_timeout = 0",
        "idle_timeout = -1",
    ] {
        let key = line.split(' ').next().expect("a key");
        let rest = ["listen = \"[::]:8883\"", "upstream = \"a:1\""].into_iter().filter(|other| !other.starts_with(key));
        let text = format!("dir = \"a\"\n[[proxy]]\n{line}\n{}", rest.collect::<Vec<_>>().join("\n"));
        let error = parse(&text).expect_err(line);
        assert!(error.contains(&format!("`proxy[0].{key}`")), "{line}: {error}");
    }
    let two = "[[proxy]]\nlisten = \"[::]:8883\"\nupstream = \"a:1\"\n".repeat(2);
    assert!(parse(&format!("dir = \"a\"\n{two}")).expect_err("twice").contains("`proxy[1].listen`"));
}

#[test]
fn other_addresses_need_a_frightening_word() {
    for listen in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(parse(&format!("dir = \"a\"\n[verdict]\nlisten = \"{listen}\"")).is_ok(), "{listen}");
    }
    let text = |table: &str| format!("dir = \"a\"\n[{table}]\nlisten = \"0.0.0.0:1\"\ndanger_any_address = true");
    assert!(parse(&text("verdict")).is_ok() && parse(&text("metrics")).is_ok());
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().expect("dir");
    let missing = dir.path().join("none.toml");
    assert!(Config::read(&missing).expect_err("missing").to_string().contains("none.toml: it cannot be read"));
    let file = dir.path().join("gateway.toml");
    std::fs::write(&file, "dir = \"state\"").expect("write");
    assert_eq!(Config::read(&file).expect("config").dir, dir.path().join("state"));
    std::fs::write(&file, " ".repeat(300_000)).expect("write");
    assert!(Config::read(&file).expect_err("large").to_string().contains("256 KiB"));
}
