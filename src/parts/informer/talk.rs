//! The conversation with the API server: which question follows which answer, and what each part
//! of an answer does to what is known.

use super::asking::{self, Asking, Body, Event, ListMetadata, Question, Verdict};
use super::deployment;
use super::limits;
use super::lines::{Line, Lines};
use super::pieces::{Broken, Piece, Pieces};
use super::trouble::Trouble;
use super::{Informer, Phase, Step};
use crate::engine::{HangUp, Now};
use crate::proto::http::Persistence;
use crate::proto::http_client::{self, Fault, Head};
use crate::time;

/// Why the rest of an answer is not read.
enum Stop {
    /// What was known up to here is too old to go on from.
    Gone,
    Trouble(Trouble, Option<u64>),
}

impl Informer {
    /// Asks the next question.
    pub(super) fn ask(&mut self, now: Now, reused: bool, out: &mut Vec<u8>) {
        let mut asking = Asking::new(self.next, now.mono_ns, reused);
        let query = match self.next {
            Question::List => self.list_query(),
            Question::Watch => {
                let spread = limits::WATCH_S_MAX - limits::WATCH_S_MIN;
                let seconds = limits::WATCH_S_MIN + self.rng.below(spread + 1);
                let most_ms = seconds * 1000 + limits::WATCH_GRACE_MS;
                asking.until_ns = now.mono_ns + time::ms(most_ms);
                format!(
                    "watch=true&allowWatchBookmarks=true&resourceVersion={}\
                     &timeoutSeconds={seconds}",
                    asking::escaped(&self.version)
                )
            }
        };
        self.figures.requests += 1;
        let (access, namespace) = (&self.plan.access, &self.plan.namespace);
        let token = match self.secrets.token(access) {
            Ok(token) => token,
            Err(missing) => {
                self.steps.push_back(Step::HangUp);
                return self.fail(now, Trouble::Missing(missing), None);
            }
        };
        if asking::write(out, access, namespace, &query, token).is_err() {
            // Only a namespace or token that nobody checked could do this.
            self.steps.push_back(Step::HangUp);
            return self.fail(now, Trouble::Unsayable, None);
        }
        self.phase = Phase::Asking(Box::new(asking));
    }

    fn list_query(&mut self) -> String {
        if self.page.is_empty() {
            self.version_of_list.clear();
            self.pages = 0;
            self.feed.begin_list();
            return format!("limit={}", limits::PAGE);
        }
        format!("limit={}&continue={}", limits::PAGE, asking::escaped(&self.page))
    }

    /// Bytes of the answer; the caller has taken it out of the phase, and one is set in any case.
    pub(super) fn hear(
        &mut self,
        now: Now,
        mut asking: Box<Asking>,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
    ) {
        let heard = loop {
            match asking.answer.next(&mut bytes) {
                Ok(None) => {
                    self.phase = Phase::Asking(asking);
                    return;
                }
                Ok(Some(http_client::Event::Head(head))) => {
                    if let Err(stop) = self.head(&mut asking.body, asking.question, &head) {
                        break Err(stop);
                    }
                }
                Ok(Some(http_client::Event::Body(body))) => {
                    let (said, heard) = (&mut asking.body, &mut asking.heard);
                    if let Err(stop) = self.body(now, said, heard, body) {
                        break Err(stop);
                    }
                }
                Ok(Some(http_client::Event::End(persistence))) => break Ok(persistence),
                Err(fault) => break Err(Stop::Trouble(Trouble::NotHttp(fault), None)),
            }
        };
        match heard {
            Ok(persistence) => {
                // Bytes that nobody asked for: nothing on this connection can be trusted.
                let again = persistence == Persistence::KeepAlive && bytes.is_empty();
                self.finish(now, &asking, again.then_some(out));
            }
            Err(stop) => self.stop(now, &asking, stop),
        }
    }

    /// The connection ended before the answer did, or was to.
    pub(super) fn cut_off(&mut self, now: Now, mut asking: Asking, how: HangUp) {
        self.steps.push_back(Step::HangUp);
        let ended = asking.answer.ended();
        match (how, ended) {
            (HangUp::Eof, Ok(())) => self.finish(now, &asking, None),
            // It had been idle for the server's taste: that is no trouble.
            (_, Err(Fault::NoAnswer)) if asking.reused => self.connect(now),
            // A server may take its time to say that it does not want us.
            (HangUp::Tls(_), _) => {
                let trouble = Trouble::NotConnected(how);
                self.stop(now, &asking, Stop::Trouble(trouble, None));
            }
            (_, _) => self.stop(now, &asking, Stop::Trouble(Trouble::Lost, None)),
        }
    }

    fn head(&mut self, body: &mut Body, question: Question, head: &Head<'_>) -> Result<(), Stop> {
        match (asking::judge(head), question) {
            (Verdict::Good, Question::List) => {
                *body = Body::List(Pieces::default());
                self.page.clear();
                self.pages += 1;
            }
            (Verdict::Good, Question::Watch) => {
                *body = Body::Watch(Lines::default());
                self.feed.synced(&self.version);
            }
            (Verdict::Gone, _) => return Err(Stop::Gone),
            // The version may be what it does not like.
            (Verdict::Bad(Trouble::Status(400..=499), _), Question::Watch) => {
                return Err(Stop::Gone);
            }
            (Verdict::Bad(trouble, after), _) => return Err(Stop::Trouble(trouble, after)),
        }
        Ok(())
    }

    fn body(
        &mut self,
        now: Now,
        body: &mut Body,
        heard: &mut u64,
        mut bytes: &[u8],
    ) -> Result<(), Stop> {
        match body {
            Body::Unknown => Ok(()),
            Body::List(pieces) => loop {
                match pieces.next(&mut bytes) {
                    Ok(None) => return Ok(()),
                    Ok(Some(piece)) => self.piece(now, &piece)?,
                    Err(Broken) => return Err(Stop::Trouble(Trouble::NotAList, None)),
                }
            },
            Body::Watch(lines) => {
                while let Some(line) = lines.next(&mut bytes) {
                    match line {
                        Line::Whole(line) => self.line(now, line, heard)?,
                        Line::TooLong => self.doubt("a line that is too long"),
                    }
                }
                Ok(())
            }
        }
    }

    fn piece(&mut self, now: Now, piece: &Piece<'_>) -> Result<(), Stop> {
        match piece {
            Piece::Item(item) => match deployment::read(item) {
                Some((key, state)) => self.feed.put(now, key, state),
                None => self.note_unread("an object of the list"),
            },
            Piece::TooLong => self.note_unread("an object of the list that is too long"),
            Piece::Metadata(metadata) => {
                let metadata: ListMetadata<'_> = serde_json::from_slice(metadata)
                    .map_err(|_| Stop::Trouble(Trouble::NotAList, None))?;
                self.page = metadata.more.map(std::borrow::Cow::into_owned).unwrap_or_default();
                if self.version_of_list.is_empty() && deployment::is_version(&metadata.version) {
                    // The first page's: whatever came later is told by the watch.
                    self.version_of_list = metadata.version.into_owned();
                }
            }
            Piece::End => {}
        }
        Ok(())
    }

    fn note_unread(&mut self, what: &str) {
        self.figures.watch_errors += 1;
        log::warn!(target: "informer", "{what} cannot be read, it is left out");
    }

    /// A line is lost: the list that follows this watch makes up for it.
    fn doubt(&mut self, what: &str) {
        self.note_unread(what);
        self.doubtful = true;
    }

    fn line(&mut self, now: Now, line: &[u8], heard: &mut u64) -> Result<(), Stop> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let understood = match asking::event(line) {
            Event::Is(object) => deployment::read(object).map(|(key, state)| {
                state.version[..].clone_into(&mut self.version);
                self.feed.put(now, key, state);
            }),
            Event::Gone(object) => deployment::read(object).map(|(key, last)| {
                last.version[..].clone_into(&mut self.version);
                self.feed.delete(now, &key, Some(last));
            }),
            Event::Bookmark(version) => {
                self.version = version;
                Some(())
            }
            Event::Error(410) => return Err(Stop::Gone),
            Event::Error(code) => return Err(Stop::Trouble(Trouble::Event(code), None)),
            Event::Unknown => None,
        };
        match understood {
            Some(()) => *heard += 1,
            None => self.doubt("a line of the watch"),
        }
        Ok(())
    }

    /// The answer is whole. `out`: the next question may go out on the same connection.
    fn finish(&mut self, now: Now, asking: &Asking, out: Option<&mut Vec<u8>>) {
        self.note_health(now, asking);
        match asking.question {
            Question::List if !asking.is_whole() => {
                let stop = Stop::Trouble(Trouble::NotAList, None);
                return self.stop(now, asking, stop);
            }
            // Pages without an end are no list.
            Question::List if self.pages > limits::PAGES => {
                let stop = Stop::Trouble(Trouble::NotAList, None);
                return self.stop(now, asking, stop);
            }
            Question::List if !self.page.is_empty() => {}
            Question::List if self.version_of_list.is_empty() => {
                let stop = Stop::Trouble(Trouble::NotAList, None);
                return self.stop(now, asking, stop);
            }
            Question::List => {
                self.version.clone_from(&self.version_of_list);
                self.doubtful = false;
                self.feed.end_list(now);
                self.feed.synced(&self.version);
                self.next = Question::Watch;
                log::info!(
                    target: "informer", deployments = self.feed.deployments();
                    "synced"
                );
            }
            Question::Watch => {
                let lasted_ns = now.mono_ns.saturating_sub(asking.since_ns);
                if asking.heard == 0 && lasted_ns < time::ms(limits::SHORT_WATCH_MS) {
                    return self.rest(now);
                }
                if self.doubtful {
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

    /// A watch that ended at once and said nothing: whoever goes on asking is a nuisance.
    fn rest(&mut self, now: Now) {
        self.figures.watch_errors += 1;
        self.steps.push_back(Step::HangUp);
        if self.doubtful {
            self.list_again();
        }
        self.rest_quietly(now);
    }

    /// The rest of the answer is of no use.
    fn stop(&mut self, now: Now, asking: &Asking, stop: Stop) {
        self.steps.push_back(Step::HangUp);
        self.note_health(now, asking);
        match (stop, asking.question) {
            (Stop::Trouble(trouble, after), _) => self.fail(now, trouble, after),
            (Stop::Gone, Question::Watch) => {
                self.figures.watch_errors += 1;
                self.list_again();
                if self.backoff.is_fresh() {
                    self.backoff.pause_ms(&mut self.rng);
                    return self.connect(now);
                }
                self.rest_quietly(now);
            }
            (Stop::Gone, Question::List) => self.rest_quietly(now),
        }
    }

    /// A pause in which what is known is as good as before.
    fn rest_quietly(&mut self, now: Now) {
        self.page.clear();
        let pause_ms = self.backoff.pause_ms(&mut self.rng);
        self.phase = Phase::Resting { until_ns: now.mono_ns + time::ms(pause_ms) };
    }
}
