//! `load`, `connect` and `healthcheck` with TLS: trust and error messages.

use super::tls::{Authority, start};
use super::*;

/// Runs a tool without input.
fn run(arguments: &[&str]) -> (i32, String, String) {
    output(arguments, &[])
}

#[test]
fn tools_trust_the_given_authorities() {
    let (folder, authority) = (Folder::new("tls-tools"), Authority::new());
    authority.issue(&folder, "a", 2100);
    let file = |name: &str| folder.0.join(name).to_str().unwrap().to_owned();
    fs::write(folder.0.join("ca.pem"), authority.certificate.pem()).unwrap();
    fs::write(folder.0.join("other.pem"), Authority::new().certificate.pem()).unwrap();
    let server = start(&folder, "a", &[]);
    let port = server.main.port();
    let (url, site) = (format!("wss://localhost:{port}/echo"), format!("https://localhost:{port}"));
    let (ca, other, none) = (file("ca.pem"), file("other.pem"), file("none.pem"));
    let not_trusted = "its certificate is not trusted";
    for (flags, why) in [
        (&["--ca-file", &ca][..], ""),
        (&["--insecure"], ""),
        (&[], not_trusted),
        (&["--ca-file", &other], not_trusted),
        (
            &["--ca-file", &file("a.key")],
            "the CA certificates to check it against are not valid PEM",
        ),
    ] {
        let (code, out, err) = run(&[&["connect", &url], flags].concat());
        if why.is_empty() {
            assert!(out.starts_with(&format!("Connected to {url}.\n")), "{out}");
            assert_eq!((code, err.as_str()), (0, ""), "{flags:?}");
        } else {
            assert_eq!((code, err), (1, format!("Failed to connect to {url}: {why}.\n")));
        }
        let (code, out, err) = run(&[&["healthcheck", &site], flags].concat());
        let result = if why.is_empty() { "200 OK" } else { why };
        let line = format!("{site}/healthz: {result}\n");
        assert_eq!((code, out + &err), (i32::from(!why.is_empty()), line));
        let load = ["load", &url, "--clients", "3", "--messages", "5", "--verify", "--json"];
        let (code, out, _) = run(&[&load[..], flags].concat());
        let report: Value = serde_json::from_str(&out).unwrap();
        if why.is_empty() {
            assert_eq!((code, &report["answered"]), (0, &15.into()), "{out}");
        } else {
            let causes = report["causes"].as_object().unwrap().values();
            let causes: Vec<&Value> = causes.collect();
            let cause = serde_json::json!({ "count": 3, "text": why });
            assert_eq!((code, causes), (1, vec![&cause]), "{out}");
        }
    }
    for tool in [&["connect", &url][..], &["load", &url], &["healthcheck", &site]] {
        let (code, out, err) = run(&[tool, &["--ca-file", &none]].concat());
        let want = format!("--ca-file: cannot read {none}: No such file");
        assert!(code == 1 && (out + &err).contains(&want), "{err}");
        let (code, _, err) = run(&[tool, &["--insecure", "--ca-file", &ca]].concat());
        let want = "wspulse: --insecure and --ca-file exclude each other: leave one out\n";
        assert!(code == 2 && err.starts_with(want), "{err}");
    }
    // The name is that of the URL, whatever address is connected to.
    let elsewhere = format!("127.0.0.1:{port}");
    let through = ["connect", "wss://localhost/echo", "--ca-file", &ca, "--connect-to", &elsewhere];
    assert_eq!(run(&through).0, 0);
    let numbers = ["connect", &format!("wss://{elsewhere}/"), "--ca-file", &ca];
    let (code, _, err) = run(&numbers);
    assert!(code == 1 && err.contains("its certificate is for another name"), "{err}");
}

/// `openssl req -x509` creates one by default, and curl accepts it.
#[test]
fn a_ca_certificate_as_a_server_certificate_is_reported() {
    let (folder, authority) = (Folder::new("tls-authority"), Authority::new());
    fs::write(folder.0.join("a.pem"), authority.certificate.pem()).unwrap();
    fs::write(folder.0.join("a.key"), authority.key_pem()).unwrap();
    let server = start(&folder, "a", &[]);
    let url = format!("wss://localhost:{}/", server.main.port());
    let ca = folder.0.join("a.pem").to_str().unwrap().to_owned();
    let (code, _, err) = run(&["connect", &url, "--ca-file", &ca]);
    assert!(code == 1 && err.contains("is a CA certificate"), "{err}");
}

/// As in a container whose only listener has TLS.
#[test]
fn the_healthcheck_of_a_tls_server_uses_its_variables() {
    let (folder, authority) = (Folder::new("tls-health"), Authority::new());
    authority.issue(&folder, "a", 2100);
    let server = start(&folder, "a", &[]);
    let port = server.main.port().to_string();
    let cert = ("WSPULSE_TLS_CERT", "/tls.crt");
    let variables =
        [("WSPULSE_ADMIN_LISTEN", "off"), ("PORT", &*port), cert, ("WSPULSE_TLS_KEY", "k")];
    let (code, out, err) = output(&["healthcheck"], &variables);
    let line = format!("https://localhost:{port}/healthz: 200 OK\n");
    assert_eq!((code, out + &err), (0, line));
}
