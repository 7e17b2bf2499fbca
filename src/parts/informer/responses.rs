//! Sends requests to the API server, reads the responses, and decides which request comes next.

use super::error::Error;
use super::exchange::{self, Body, Course, Event, Exchange, HeadStatus, ListMetadata, RequestKind};
use super::limits;
use super::lines::{Line, Lines};
use super::list_parser::{Broken, ListParser, ListPart};
use super::object::{self, Key, Object};
use super::resource::Resource;
use super::{Feed, Figures, Informer, NextRequest, Phase, Plan, Progress, Step, Streams};
use crate::engine::{HangUp, Now};
use crate::proto::http::Persistence;
use crate::proto::http_client::{self, Fault, Head};
use crate::rng::Rng;
use crate::time;

enum Stop {
    /// The resource version or the page has expired.
    Expired,
    /// With the seconds of `Retry-After`.
    Error(Error, Option<u64>),
}

impl Informer {
    pub(super) fn ask(&mut self, now: Now, reused: bool, out: &mut Vec<u8>) {
        let (kind, query, most_ms) = self.request();
        self.figures.requests += 1;
        let Plan { access, namespace, resource, .. } = &self.plan;
        let token = match self.secrets.token(access) {
            Ok(token) => token,
            Err(missing) => {
                self.steps.push_back(Step::HangUp);
                return self.fail(now, Error::MissingFile(missing), None);
            }
        };
        if exchange::write(out, access, *resource, namespace, &query, token).is_err() {
            // Namespace and token are validated, so this cannot happen unless a check is missing.
            self.steps.push_back(Step::HangUp);
            return self.fail(now, Error::InvalidRequest, None);
        }
        let exchange = Exchange::new(kind, now.mono_ns, most_ms, reused);
        self.phase = Phase::Exchanging(Box::new(exchange));
    }

    /// The next request: its query, and how long its response may take.
    fn request(&mut self) -> (RequestKind, String, u64) {
        let watch = |rng: &mut Rng, from: &str| {
            let spread = limits::WATCH_S_MAX - limits::WATCH_S_MIN;
            let seconds = limits::WATCH_S_MIN + rng.below(spread + 1);
            let query =
                format!("watch=true&allowWatchBookmarks=true&{from}&timeoutSeconds={seconds}");
            (query, seconds * 1000 + limits::WATCH_GRACE_MS)
        };
        let Progress { next, streams, version, page, list_version, pages, unpaged, .. } =
            &mut self.progress;
        if *next == NextRequest::Watch {
            let from = format!("resourceVersion={}", exchange::escaped(version));
            let (query, most_ms) = watch(&mut self.rng, &from);
            return (RequestKind::Watch, query, most_ms);
        }
        if !page.is_empty() {
            let query = format!("limit={}&continue={}", limits::PAGE, exchange::escaped(page));
            return (RequestKind::List, query, limits::ANSWER_MS);
        }
        list_version.clear();
        *pages = 0;
        self.feed.begin_list();
        if *unpaged {
            return (RequestKind::List, "resourceVersion=".to_owned(), limits::WHOLE_LIST_MS);
        }
        if *streams == Streams::Try {
            // Until it has ended.
            *streams = Streams::Failed;
            let from = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
            let (query, most_ms) = watch(&mut self.rng, from);
            return (RequestKind::Stream, query, most_ms);
        }
        (RequestKind::List, format!("limit={}", limits::PAGE), limits::ANSWER_MS)
    }

    /// Reads bytes of a response. When it is complete, appends the next request to `out`.
    pub(super) fn read_response(&mut self, now: Now, mut bytes: &[u8], out: &mut Vec<u8>) {
        let Self { phase: Phase::Exchanging(exchange), plan, feed, figures, progress, .. } = self
        else {
            return;
        };
        let resource = plan.resource;
        let mut reader = Reader { now, resource, feed, figures, progress };
        let result = reader.read(exchange, &mut bytes);
        let (course, whole) = (exchange.course, exchange.is_whole());
        match result {
            Ok(None) => {}
            Ok(Some(persistence)) => {
                // After unsolicited bytes the connection cannot be reused.
                let reusable = persistence == Persistence::KeepAlive && bytes.is_empty();
                self.finish(now, course, whole, reusable.then_some(out));
            }
            Err(stop) => self.stop(now, course, stop),
        }
    }

    /// The connection ended during a response, or at its end.
    pub(super) fn cut_off(
        &mut self,
        now: Now,
        exchange: Course,
        whole: bool,
        ended: Result<(), Fault>,
        how: HangUp,
    ) {
        self.steps.push_back(Step::HangUp);
        match (how, ended) {
            (HangUp::Eof, Ok(())) => self.finish(now, exchange, whole, None),
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
    fn finish(&mut self, now: Now, exchange: Course, whole: bool, out: Option<&mut Vec<u8>>) {
        self.note_health(now, exchange);
        let not_a_list = Stop::Error(Error::NotAList, None);
        match exchange.kind {
            RequestKind::Stream => return self.stop(now, exchange, not_a_list),
            RequestKind::List if !whole || self.progress.pages > limits::PAGES => {
                return self.stop(now, exchange, not_a_list);
            }
            RequestKind::List if !self.progress.page.is_empty() => {}
            RequestKind::List if self.progress.list_version.is_empty() => {
                return self.stop(now, exchange, not_a_list);
            }
            RequestKind::List => {
                let version = std::mem::take(&mut self.progress.list_version);
                self.progress.listed(now, version, &mut self.feed);
            }
            RequestKind::Watch => {
                let lasted_ns = now.mono_ns.saturating_sub(exchange.since_ns);
                let is_short = lasted_ns < time::ms(limits::SHORT_WATCH_MS);
                if exchange.events == 0 && is_short {
                    return self.stop(now, exchange, Stop::Error(Error::ShortWatch, None));
                }
                // Servers send a bookmark before they end a watch. One that has sent nothing may
                // not know the resource version, as after its database was restored.
                let ran_out = now.mono_ns + time::ms(limits::WATCH_END_MS) >= exchange.ends_ns;
                let lacks = self.progress.incomplete || self.feed.has_room_again();
                if lacks || exchange.events == 0 && ran_out {
                    self.list_again();
                }
                // A server or proxy that ends each watch after an event must not be asked all the
                // time.
                if is_short && !self.backoff.forgives(&mut self.rng) {
                    let pause_ms = self.backoff.pause_ms(&mut self.rng);
                    self.steps.push_back(Step::HangUp);
                    return self.wait(now, pause_ms);
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

    /// Discards the rest of the response.
    fn stop(&mut self, now: Now, exchange: Course, stop: Stop) {
        self.steps.push_back(Step::HangUp);
        self.note_health(now, exchange);
        match (stop, exchange.kind) {
            (Stop::Error(error, after), _) => self.fail(now, error, after),
            (Stop::Expired, RequestKind::Watch) => {
                self.figures.watch_errors += 1;
                self.list_again();
                if self.backoff.forgives_expiry(&mut self.rng) {
                    return self.connect(now);
                }
                self.fail(now, Error::Event(410), None);
            }
            // The connection is closed, so that the rest of the response need not be read.
            (Stop::Expired, RequestKind::Stream) => self.connect(now),
            (Stop::Expired, RequestKind::List) => {
                // The pages are slower than the server's history: do without.
                self.progress.unpaged = !self.progress.page.is_empty();
                self.fail(now, Error::Status(410), None);
            }
        }
    }
}

/// Applies the parts of a response.
struct Reader<'i> {
    now: Now,
    resource: Resource,
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
                    exchange.body = self.head(&mut exchange.course, &head)?;
                }
                Ok(Some(http_client::Event::Body(bytes))) => {
                    self.body(&mut exchange.body, &mut exchange.course, bytes)?;
                }
                Ok(Some(http_client::Event::End(persistence))) => return Ok(Some(persistence)),
                Err(fault) => return Err(Stop::Error(Error::NotHttp(fault), None)),
            }
        }
    }

    fn head(&mut self, course: &mut Course, head: &Head<'_>) -> Result<Body, Stop> {
        let (now_ns, idle_ns) = (self.now.mono_ns, time::ms(limits::STREAM_IDLE_MS));
        match (exchange::check_head(head), course.kind) {
            (HeadStatus::Ok, RequestKind::List) => {
                course.until_ns = course.ends_ns;
                self.progress.page.clear();
                self.progress.pages += 1;
                Ok(Body::List(ListParser::default()))
            }
            (HeadStatus::Ok, RequestKind::Stream) => {
                course.until_ns = course.ends_ns.min(now_ns + idle_ns);
                Ok(Body::Watch(Lines::default()))
            }
            (HeadStatus::Ok, RequestKind::Watch) => {
                course.until_ns = course.ends_ns;
                course.proven_ns = Some(now_ns + time::ms(limits::PROOF_MS));
                Ok(Body::Watch(Lines::default()))
            }
            (HeadStatus::Expired, _) => Err(Stop::Expired),
            // The server may have rejected the resource version.
            (HeadStatus::Failed(Error::Status(400..=499), _), RequestKind::Watch) => {
                Err(Stop::Expired)
            }
            // It does not know the parameters of a streamed list: 1.19 to 1.31 answer 422.
            (HeadStatus::Failed(Error::Status(400..=499), _), RequestKind::Stream) => {
                self.progress.streams = Streams::Unsupported;
                Err(Stop::Expired)
            }
            (HeadStatus::Failed(error, after), _) => Err(Stop::Error(error, after)),
        }
    }

    fn body(&mut self, body: &mut Body, course: &mut Course, mut bytes: &[u8]) -> Result<(), Stop> {
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
                    match (line, course.kind) {
                        (Line::Whole(line), _) if line.iter().all(u8::is_ascii_whitespace) => {}
                        (Line::Whole(line), RequestKind::Watch) => self.change(line, course)?,
                        (Line::Whole(line), _) => self.initial(line, course)?,
                        (Line::TooLong, RequestKind::Watch) => {
                            log::warn!(target: "informer", "watch event too long, listing again");
                            return Err(Stop::Expired);
                        }
                        (Line::TooLong, _) => self.note_omitted("object of the list too long"),
                    }
                }
                Ok(())
            }
        }
    }

    fn list_part(&mut self, part: &ListPart<'_>) -> Result<(), Stop> {
        match part {
            ListPart::Item(item) => match self.object(item) {
                Some((key, state)) => self.feed.put(self.now, key, state),
                None => self.note_omitted("cannot parse an object of the list"),
            },
            ListPart::TooLong => self.note_omitted("object of the list too long"),
            ListPart::Metadata(metadata) => {
                let metadata: ListMetadata<'_> = serde_json::from_slice(metadata)
                    .map_err(|_| Stop::Error(Error::NotAList, None))?;
                let Progress { page, list_version, .. } = &mut *self.progress;
                *page = metadata.more.map(std::borrow::Cow::into_owned).unwrap_or_default();
                if list_version.is_empty() && object::is_version(&metadata.version) {
                    // The version of the first page: the watch repeats all later changes.
                    *list_version = metadata.version.into_owned();
                }
            }
            ListPart::End => {}
        }
        Ok(())
    }

    fn object(&self, json: &[u8]) -> Option<(Key, Object)> {
        object::read(self.resource, json)
    }

    /// An object of the list cannot be shown.
    fn note_omitted(&mut self, what: &str) {
        self.note_unread(what);
        self.feed.note_omitted();
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

    /// An event of a streamed list before its end.
    fn initial(&mut self, line: &[u8], course: &mut Course) -> Result<(), Stop> {
        let parsed = match exchange::event(line) {
            Event::Added(object) => {
                let idle_until_ns = self.now.mono_ns + time::ms(limits::STREAM_IDLE_MS);
                course.until_ns = course.ends_ns.min(idle_until_ns);
                self.object(object).map(|(key, state)| self.feed.put(self.now, key, state))
            }
            Event::Modified(object) => {
                self.object(object).map(|(key, state)| self.feed.put(self.now, key, state))
            }
            Event::Deleted(object) => {
                self.object(object).map(|(key, last)| self.feed.delete(self.now, &key, Some(last)))
            }
            Event::Bookmark(version, true) => {
                self.progress.streams = Streams::Try;
                self.progress.listed(self.now, version, self.feed);
                course.kind = RequestKind::Watch;
                course.until_ns = course.ends_ns;
                self.prove(course);
                Some(())
            }
            Event::Bookmark(_, false) => Some(()),
            Event::Error(410) => return Err(Stop::Expired),
            Event::Error(code) => return Err(Stop::Error(Error::Event(code), None)),
            Event::Unknown => None,
        };
        if parsed.is_none() {
            self.note_omitted("cannot parse an object of the list");
        }
        Ok(())
    }

    fn change(&mut self, line: &[u8], course: &mut Course) -> Result<(), Stop> {
        let parsed = match exchange::event(line) {
            Event::Added(object) | Event::Modified(object) => {
                self.object(object).map(|(key, state)| {
                    state.version[..].clone_into(&mut self.progress.version);
                    self.feed.put(self.now, key, state);
                })
            }
            Event::Deleted(object) => self.object(object).map(|(key, last)| {
                last.version[..].clone_into(&mut self.progress.version);
                self.feed.delete(self.now, &key, Some(last));
            }),
            Event::Bookmark(version, _) => {
                self.progress.version = version;
                Some(())
            }
            Event::Error(410) => return Err(Stop::Expired),
            Event::Error(code) => return Err(Stop::Error(Error::Event(code), None)),
            Event::Unknown => None,
        };
        match parsed {
            Some(()) => self.prove(course),
            None => self.note_incomplete("cannot parse a watch event"),
        }
        Ok(())
    }

    /// The watch works, so the store is up to date.
    fn prove(&mut self, course: &mut Course) {
        course.events += 1;
        course.proven_ns = None;
        self.progress.errors = 0;
        self.feed.synced();
    }
}

impl Progress {
    /// A list is complete; the watch begins at this resource version.
    fn listed(&mut self, now: Now, version: String, feed: &mut Feed) {
        feed.end_list(now, &version);
        self.version = version;
        self.next = NextRequest::Watch;
        self.incomplete = false;
        self.unpaged = false;
        if self.streams == Streams::Failed {
            self.streams = Streams::Try;
        }
        let (kind, objects) = (feed.resource().name(), feed.objects());
        log::info!(target: "informer", kind, objects; "listed");
    }
}
