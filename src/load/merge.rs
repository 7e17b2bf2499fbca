//! Reads the reports of several generators and adds them. A file is input that may be damaged, or
//! may come from elsewhere: each fault is an error with the file's name.

use core::fmt;

use super::histogram::COUNT_MAX;
use super::summary::{Causes, Summary, add};

/// Why a file is not a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoReport {
    /// The name of the file.
    pub file: String,
    /// The line, from 1; 0 if it concerns the whole file.
    pub line: usize,
    /// A clause.
    pub why: String,
}

impl fmt::Display for NoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.why),
            line => write!(f, "{}, line {line}: {}", self.file, self.why),
        }
    }
}

/// The reports in these files, each with its name: one a line. All of them become one.
///
/// # Errors
/// The first line that is no report.
pub fn merge<'f>(
    files: impl IntoIterator<Item = (&'f str, &'f [u8])>,
) -> Result<Summary, NoReport> {
    let mut all: Option<Summary> = None;
    let mut last = "";
    for (file, bytes) in files {
        last = file;
        let wrong = |line, why| NoReport { file: file.to_owned(), line, why };
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|_| wrong(0, "it is not UTF-8".to_owned()))?;
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let mut reports = 0;
        for (number, line) in lines {
            let report = Summary::from_json(line).map_err(|why| wrong(number, why))?;
            reports += 1;
            match &mut all {
                None => all = Some(report),
                Some(all) => all.add(report).map_err(|why| wrong(number, why.to_owned()))?,
            }
        }
        if reports == 0 {
            return Err(wrong(0, "there is no report in it".to_owned()));
        }
    }
    all.ok_or_else(|| NoReport {
        file: last.to_owned(),
        line: 0,
        why: "there is no report in it".to_owned(),
    })
}

impl Summary {
    /// The error is a clause.
    fn add(&mut self, mut other: Self) -> Result<(), &'static str> {
        for (mine, theirs) in [(&mut self.url, &other.url), (&mut self.task, &other.task)] {
            if mine != theirs && !mine.ends_with(", and others") {
                mine.push_str(", and others");
            }
        }
        let (end_ms, last_ms) =
            (self.end_ms().max(other.end_ms()), self.last_ms().max(other.last_ms()));
        self.began_ms = self.began_ms.min(other.began_ms);
        self.elapsed_ms = end_ms - self.began_ms;
        self.apart_ms = last_ms - self.began_ms;
        self.connect_ms = self.connect_ms.max(other.connect_ms);
        for ((_, mine), (_, theirs)) in self.counts().into_iter().zip(other.counts()) {
            *mine += *theirs;
        }
        for ((_, mine), (_, theirs)) in self.shares().into_iter().zip(other.shares()) {
            *mine = match (*mine, *theirs) {
                (Some(mine), Some(theirs)) => Some(mine.max(theirs)),
                (one, other) => one.or(other),
            };
        }
        for ((_, mine), (_, theirs)) in self.times().into_iter().zip(other.times()) {
            mine.add(theirs);
        }
        for ((_, mine), (_, theirs)) in self.flags().into_iter().zip(other.flags()) {
            *mine |= *theirs;
        }
        (self.ideal_ms, self.busiest_ms) = (None, None);
        for (mine, theirs) in [
            (&mut self.closes, &other.closes),
            (&mut self.closed_by_server, &other.closed_by_server),
        ] {
            for (code, count) in theirs {
                *mine.entry(*code).or_default() += count;
            }
        }
        add_causes(&mut self.causes, &other.causes);
        add_causes(&mut self.failed_attempts, &other.failed_attempts);
        for server in other.servers {
            match self.servers.iter_mut().find(|mine| mine.name == server.name) {
                Some(mine) => {
                    mine.connections = mine.connections.saturating_add(server.connections);
                    mine.answers = mine.answers.saturating_add(server.answers);
                }
                None => self.servers.push(server),
            }
        }
        // After each report, so that the next sum fits as well.
        self.derive();
        let mut totals = self.times().map(|(_, times)| times.total()).into_iter();
        if totals.any(|count| count > COUNT_MAX) || self.errors > COUNT_MAX || self.check().is_err()
        {
            return Err("the counts of all reports are absurd together");
        }
        Ok(())
    }

    fn end_ms(&self) -> f64 {
        self.began_ms + self.elapsed_ms
    }

    /// When the last generator began.
    fn last_ms(&self) -> f64 {
        self.began_ms + self.apart_ms
    }
}

fn add_causes(mine: &mut Causes, theirs: &Causes) {
    for (code, cause) in theirs {
        add(mine, code, &cause.text, cause.count);
    }
}

#[cfg(test)]
mod tests;
