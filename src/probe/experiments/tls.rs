//! The certificate, the TLS version, and WebSockets over HTTP/2 where they are announced.

use super::{Experiment, finding};
use crate::engine::Target;
use crate::engine::{HangUp, Id, TlsFault};
use crate::probe::facts::Facts;
use crate::probe::h2::{Answer, Session};
use crate::probe::habits::Cause;
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::{Event, Purpose};
use crate::probe::{Cx, Plan, Shared};

/// A certificate that ends within this time should be renewed by now.
const SOON_DAYS: i64 = 14;
const LIMIT_MS: u64 = 4_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Tls {
    /// Whether the server chose h2 when it was offered.
    offers_h2: bool,
    session: Option<Session>,
    answer: Option<Answer>,
    now_s: i64,
}

impl Experiment for Tls {
    fn id(&self) -> &'static str {
        "tls"
    }

    fn impossible(&self, shared: &Shared) -> Option<&'static str> {
        match &shared.plan.target {
            Target::Tls(_) => None,
            _ => Some("no TLS: the URL begins with ws://"),
        }
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        self.now_s = cx.now.wall_ms / 1_000;
        if !cx.shared.facts.reached {
            return cx.done();
        }
        let mut target = cx.shared.target();
        if let Target::Tls(secured) = &mut target {
            secured.alpn = &[b"h2", b"http/1.1"];
        }
        cx.open_to(target, Purpose::Raw(Vec::new()));
        cx.wake_in(LIMIT_MS);
    }

    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        match event {
            Event::Connected => {
                let wire = cx.shared.wires.find(id);
                self.offers_h2 = wire.is_some_and(|wire| wire.alpn.as_deref() == Some("h2"));
                if !self.offers_h2 {
                    return cx.done();
                }
                let ask = cx.shared.ask("");
                let (session, first) = Session::begin(&ask);
                self.session = Some(session);
                cx.send_raw(id, &first);
            }
            Event::Bytes(bytes) => {
                let Some(session) = &mut self.session else { return };
                let (output, answer) = session.received(&bytes);
                cx.send_raw(id, &output);
                if answer.is_some() {
                    self.answer = answer;
                    cx.done();
                }
            }
            Event::Failed(..) | Event::Ended(_) => cx.done(),
            _ => {}
        }
    }

    fn fire(&mut self, cx: &mut Cx<'_>) {
        // Announced, asked for, and not answered.
        if self.session.as_ref().is_some_and(Session::has_asked) {
            self.answer = Some(Answer::Refused("no answer within 4 s".to_owned()));
        }
        cx.done();
    }

    fn judge(&self, facts: &Facts, _: &Plan) -> Verdict {
        let mut verdict = match &facts.tls {
            Some(tls) => Verdict::passed(tls.version),
            None => Verdict::unknown("no TLS connection"),
        };
        let mut add = |severity, id: &str, title: &str, seen: String, cause| {
            let said = (title, seen);
            verdict.findings.push(finding(severity, id, said, (facts, cause)));
        };
        if let Some(fault) = facts.distrust {
            let lacks_issuer = facts.tls.as_ref().is_some_and(|tls| tls.lacks_issuer);
            let said = fault.to_string();
            let (id, title, seen, cause) = match fault {
                TlsFault::NotTrusted if lacks_issuer => (
                    "tls-chain-incomplete",
                    "The certificate is not trusted: most likely the server does not send its \
                     intermediate certificates.",
                    "it sent one certificate, signed by one that is no known root; with a CA of \
                     your own: --ca-file FILE"
                        .to_owned(),
                    Cause::Chain,
                ),
                TlsFault::WrongName => {
                    let title = "The certificate is for another name.";
                    ("tls-wrong-name", title, said, Cause::Certificate)
                }
                TlsFault::Expired => {
                    ("tls-expired", "The certificate has expired.", said, Cause::Certificate)
                }
                _ => ("tls-untrusted", "The certificate is not trusted.", said, Cause::Certificate),
            };
            add(Severity::Error, id, title, seen, cause);
        }
        if let Some(HangUp::Tls(fault)) = facts.tls_failure {
            let title = "TLS handshakes fail.";
            add(Severity::Error, "tls-failed", title, fault.to_string(), Cause::Certificate);
        }
        let expires_s = facts.tls.as_ref().and_then(|tls| tls.expires_s);
        if let Some(expires_s) = expires_s {
            let days = (expires_s - self.now_s).div_euclid(86_400);
            if (0..SOON_DAYS).contains(&days) && facts.distrust.is_none() {
                let title = "The certificate expires soon: its renewal does not work.";
                let seen = format!("in {days} days");
                add(Severity::Warning, "tls-expires-soon", title, seen, Cause::Certificate);
            }
            verdict.figure("certificate_days", days);
            if verdict.findings.is_empty() {
                verdict.note = format!("{}, certificate valid for {days} days", verdict.note);
            }
        }
        match &self.answer {
            Some(Answer::Refused(how)) => {
                let said = (
                    "The server announces WebSockets over HTTP/2 and refuses them: some browsers \
                     fail.",
                    format!("an extended CONNECT (RFC 8441): {how}"),
                );
                let cause = (facts, Cause::ExtendedConnect);
                verdict.findings.push(finding(Severity::Error, "h2-connect-fails", said, cause));
            }
            Some(Answer::Opened) => verdict.note.push_str(", WebSockets over h2 work"),
            Some(Answer::NotAnnounced) => {
                verdict.note.push_str(", h2 without WebSockets: browsers use HTTP/1.1");
            }
            None => {}
        }
        verdict.figure("h2", self.offers_h2);
        verdict
    }
}
