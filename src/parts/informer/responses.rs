//! Sends requests to the API server, reads the responses, and decides which request comes next.

use super::deployment;
use super::error::Error;
use super::exchange::{
    self, Body, Event, Exchange, HeadStatus, ListMetadata, RequestKind, Summary,
};
use super::limits;
use super::lines::{Line, Lines};
use super::list_parser::{Broken, ListParser, ListPart};
use super::{Feed, Figures, Informer, Phase, Progress, Step};
use crate::engine::{HangUp, Now};
use crate::proto::http::Persistence;
use crate::proto::http_client::{self, Fault, Head};
use crate::time;

enum Stop {
    /// The resource version or the page has expired.
    Expired,
    /// With the seconds of `Retry-After`.
    Error(Error, Option<u64>),
}

impl Informer {
    pub(super) fn ask(&mut self, now: Now, reused: bool, out: &mut Vec<u8>) {
        let mut exchange = Exchange::new(self.next, now.mono_ns, reused);
        let query = match self.next {
            RequestKind::List => self.list_query(),
            RequestKind::Watch => {
                let spread = limits::WATCH_S_MAX - limits::WATCH_S_MIN;
                let seconds = limits::WATCH_S_MIN + self.rng.below(spread + 1);
                let most_ms = seconds * 1000 + limits::WATCH_GRACE_MS;
                exchange.until_ns = now.mono_ns + time::ms(most_ms);
                format!(
                    "watch=true&allowWatchBookmarks=true&resourceVersion={}\
                     &timeoutSeconds={seconds}",
                    exchange::escaped(&self.progress.version)
                )
            }
        };
        self.figures.requests += 1;
        let (access, namespace) = (&self.plan.access, &self.plan.namespace);
        let token = match self.secrets.token(access) {
            Ok(token) => token,
            Err(missing) => {
                self.steps.push_back(Step::HangUp);
                return self.fail(now, Error::MissingFile(missing), None);
            }
        };
        if exchange::write(out, access, namespace, &query, token).is_err() {
            // Namespace and token are validated, so this cannot happen unless a check is missing.
            self.steps.push_back(Step::HangUp);
            return self.fail(now, Error::InvalidRequest, None);
        }
        self.phase = Phase::Exchanging(Box::new(exchange));
    }

    fn list_query(&mut self) -> String {
        let Progress { page, list_version, pages, .. } = &mut self.progress;
        if page.is_empty() {
            list_version.clear();
            *pages = 0;
            self.feed.begin_list();
            return format!("limit={}", limits::PAGE);
        }
        format!("limit={}&continue={}", limits::PAGE, exchange::escaped(page))
    }

    /// Reads bytes of a response. When it is complete, appends the next request to `out`.
    pub(super) fn read_response(&mut self, now: Now, mut bytes: &[u8], out: &mut Vec<u8>) {
        let Self { phase: Phase::Exchanging(exchange), feed, figures, progress, .. } = self else {
            return;
        };
        let result = Reader { now, feed, figures, progress }.read(exchange, &mut bytes);
        let summary = exchange.summary();
        match result {
            Ok(None) => {}
            Ok(Some(persistence)) => {
                // After unsolicited bytes the connection cannot be reused.
                let reusable = persistence == Persistence::KeepAlive && bytes.is_empty();
                self.finish(now, summary, reusable.then_some(out));
            }
            Err(stop) => self.stop(now, summary, stop),
        }
    }

    /// The connection ended during a response, or at its end.
    pub(super) fn cut_off(
        &mut self,
        now: Now,
        exchange: Summary,
        ended: Result<(), Fault>,
        how: HangUp,
    ) {
        self.steps.push_back(Step::HangUp);
        match (how, ended) {
            (HangUp::Eof, Ok(())) => self.finish(now, exchange, None),
            // The server closed an idle connection: not an error.
            (_, Err(Fault::NoAnswer)) if exchange.reused => self.connect(now),
            // With TLS 1.3 a server may reject our certificate after the handshake.
            (HangUp::Tls(_), _) => {
                self.stop(now, exchange, Stop::Error(Error::NotConnected(how), None));
            }
            (_, _) => self.stop(now, exchange, Stop::Error(Error::Lost, None)),
        }
    }

    /// The response is complete. With `out`, the connection is reused for the next request.
    fn finish(&mut self, now: Now, exchange: Summary, out: Option<&mut Vec<u8>>) {
        self.note_health(now, exchange);
        match exchange.kind {
            RequestKind::List if !exchange.is_whole || self.progress.pages > limits::PAGES => {
                return self.stop(now, exchange, Stop::Error(Error::NotAList, None));
            }
            RequestKind::List if !self.progress.page.is_empty() => {}
            RequestKind::List if self.progress.list_version.is_empty() => {
                return self.stop(now, exchange, Stop::Error(Error::NotAList, None));
            }
            RequestKind::List => {
                self.progress.version.clone_from(&self.progress.list_version);
                self.progress.incomplete = false;
                self.feed.end_list(now);
                self.feed.synced(&self.progress.version);
                self.next = RequestKind::Watch;
                log::info!(
                    target: "informer", deployments = self.feed.deployments();
                    "synced"
                );
            }
            RequestKind::Watch => {
                let lasted_ns = now.mono_ns.saturating_sub(exchange.since_ns);
                if exchange.events == 0 && lasted_ns < time::ms(limits::SHORT_WATCH_MS) {
                    return self.pause_after_short_watch(now);
                }
                if self.progress.incomplete {
                    self.list_again();
                }
            }
        }
        if let Some(out) = out {
            self.ask(now, true, out);
        } else {
            self.steps.push_back(Step::HangUp);
            self.connect(now);
        }
    }

    /// A watch ended immediately without an event: do not flood the server with requests.
    fn pause_after_short_watch(&mut self, now: Now) {
        self.figures.watch_errors += 1;
        self.steps.push_back(Step::HangUp);
        if self.progress.incomplete {
            self.list_again();
        }
        self.pause(now);
    }

    /// Discards the rest of the response.
    fn stop(&mut self, now: Now, exchange: Summary, stop: Stop) {
        self.steps.push_back(Step::HangUp);
        self.note_health(now, exchange);
        match (stop, exchange.kind) {
            (Stop::Error(error, after), _) => self.fail(now, error, after),
            (Stop::Expired, RequestKind::Watch) => {
                self.figures.watch_errors += 1;
                self.list_again();
                if self.backoff.is_fresh() {
                    self.backoff.pause_ms(&mut self.rng);
                    return self.connect(now);
                }
                self.pause(now);
            }
            (Stop::Expired, RequestKind::List) => self.pause(now),
        }
    }

    /// Pauses with backoff, without reporting the Deployments as stale.
    fn pause(&mut self, now: Now) {
        self.progress.page.clear();
        let pause_ms = self.backoff.pause_ms(&mut self.rng);
        self.phase = Phase::Waiting { until_ns: now.mono_ns + time::ms(pause_ms) };
    }
}

/// Applies the parts of a response.
struct Reader<'i> {
    now: Now,
    feed: &'i mut Feed,
    figures: &'i mut Figures,
    progress: &'i mut Progress,
}

impl Reader<'_> {
    /// Returns `None` if more bytes are needed.
    fn read(
        &mut self,
        exchange: &mut Exchange,
        bytes: &mut &[u8],
    ) -> Result<Option<Persistence>, Stop> {
        loop {
            match exchange.answer.next(bytes) {
                Ok(None) => return Ok(None),
                Ok(Some(http_client::Event::Head(head))) => {
                    self.head(&mut exchange.body, exchange.kind, &head)?;
                }
                Ok(Some(http_client::Event::Body(body))) => {
                    self.body(&mut exchange.body, &mut exchange.events, body)?;
                }
                Ok(Some(http_client::Event::End(persistence))) => return Ok(Some(persistence)),
                Err(fault) => return Err(Stop::Error(Error::NotHttp(fault), None)),
            }
        }
    }

    fn head(&mut self, body: &mut Body, kind: RequestKind, head: &Head<'_>) -> Result<(), Stop> {
        match (exchange::check_head(head), kind) {
            (HeadStatus::Ok, RequestKind::List) => {
                *body = Body::List(ListParser::default());
                self.progress.page.clear();
                self.progress.pages += 1;
            }
            (HeadStatus::Ok, RequestKind::Watch) => {
                *body = Body::Watch(Lines::default());
                self.feed.synced(&self.progress.version);
            }
            (HeadStatus::Expired, _) => return Err(Stop::Expired),
            // The server may have rejected the resource version.
            (HeadStatus::Failed(Error::Status(400..=499), _), RequestKind::Watch) => {
                return Err(Stop::Expired);
            }
            (HeadStatus::Failed(error, after), _) => return Err(Stop::Error(error, after)),
        }
        Ok(())
    }

    fn body(&mut self, body: &mut Body, events: &mut u64, mut bytes: &[u8]) -> Result<(), Stop> {
        match body {
            Body::Unknown => Ok(()),
            Body::List(parser) => loop {
                match parser.next(&mut bytes) {
                    Ok(None) => return Ok(()),
                    Ok(Some(part)) => self.list_part(&part)?,
                    Err(Broken) => return Err(Stop::Error(Error::NotAList, None)),
                }
            },
            Body::Watch(lines) => {
                while let Some(line) = lines.next(&mut bytes) {
                    match line {
                        Line::Whole(line) => self.line(line, events)?,
                        Line::TooLong => self.note_incomplete("watch event too long"),
                    }
                }
                Ok(())
            }
        }
    }

    fn list_part(&mut self, part: &ListPart<'_>) -> Result<(), Stop> {
        match part {
            ListPart::Item(item) => match deployment::read(item) {
                Some((key, state)) => self.feed.put(self.now, key, state),
                None => self.note_unread("cannot parse an object of the list"),
            },
            ListPart::TooLong => self.note_unread("object of the list too long"),
            ListPart::Metadata(metadata) => {
                let metadata: ListMetadata<'_> = serde_json::from_slice(metadata)
                    .map_err(|_| Stop::Error(Error::NotAList, None))?;
                let Progress { page, list_version, .. } = &mut *self.progress;
                *page = metadata.more.map(std::borrow::Cow::into_owned).unwrap_or_default();
                if list_version.is_empty() && deployment::is_version(&metadata.version) {
                    // The version of the first page: the watch repeats all later changes.
                    *list_version = metadata.version.into_owned();
                }
            }
            ListPart::End => {}
        }
        Ok(())
    }

    fn note_unread(&mut self, what: &str) {
        self.figures.watch_errors += 1;
        log::warn!(target: "informer", "{what}, skipped");
    }

    /// An event is lost: the list after this watch makes up for it.
    fn note_incomplete(&mut self, what: &str) {
        self.note_unread(what);
        self.progress.incomplete = true;
    }

    fn line(&mut self, line: &[u8], events: &mut u64) -> Result<(), Stop> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let parsed = match exchange::event(line) {
            Event::Put(object) => deployment::read(object).map(|(key, state)| {
                state.version[..].clone_into(&mut self.progress.version);
                self.feed.put(self.now, key, state);
            }),
            Event::Deleted(object) => deployment::read(object).map(|(key, last)| {
                last.version[..].clone_into(&mut self.progress.version);
                self.feed.delete(self.now, &key, Some(last));
            }),
            Event::Bookmark(version) => {
                self.progress.version = version;
                Some(())
            }
            Event::Error(410) => return Err(Stop::Expired),
            Event::Error(code) => return Err(Stop::Error(Error::Event(code), None)),
            Event::Unknown => None,
        };
        match parsed {
            Some(()) => *events += 1,
            None => self.note_incomplete("cannot parse a watch event"),
        }
        Ok(())
    }
}
