//! The queue and its writer, with descriptors that block or break.

use super::*;
use std::sync::Arc;

fn logs(filter: &str) -> (Logs, Receiver<Item>) {
    let (queue, lines) = sync_channel(QUEUE_LINES_MAX);
    let filter = env_logger::Builder::new().parse_filters(filter).build();
    (Logs::new(filter, Shape::Text, queue), lines)
}

fn say(logs: &Logs, level: Level, kind: &str, message: &str) {
    logs.log(&Record::builder().level(level).target(kind).args(format_args!("{message}")).build());
}

/// Runs the writer over the queued items and a flush; returns what it wrote.
fn written(logs: &Logs, lines: &Receiver<Item>) -> String {
    let out = Shared::default();
    let (relay, relayed) = sync_channel(QUEUE_LINES_MAX + 8);
    for item in lines.try_iter() {
        relay.send(item).unwrap();
    }
    let (done, mark) = sync_channel(1);
    relay.send(Item::Flush(done)).unwrap();
    // The writer returns when the queue has no sender.
    drop(relay);
    write_lines(logs, &relayed, out.clone());
    mark.recv().unwrap();
    String::from_utf8(out.0.lock().unwrap().clone()).unwrap()
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_pass_the_filter_and_arrive_in_order() {
    let (logs, lines) = logs("info,quiet=off");
    say(&logs, Level::Info, "start", "one");
    say(&logs, Level::Debug, "start", "hidden");
    say(&logs, Level::Error, "quiet", "hidden");
    say(&logs, Level::Warn, "start", "two\x1b[0m");
    let text = written(&logs, &lines);
    let found: Vec<&str> = text.lines().map(|line| &line[25..]).collect();
    assert_eq!(found, ["info  one", "warn  two\\u{1b}[0m"]);
}

#[test]
fn a_full_queue_drops_and_reports() {
    let (logs, lines) = logs("info");
    for i in 0..QUEUE_LINES_MAX + 3 {
        logs.push(format!("line {i}\n"));
    }
    let text = written(&logs, &lines);
    assert_eq!(text.lines().filter(|line| line.starts_with("line ")).count(), QUEUE_LINES_MAX);
    let told = text.lines().find(|line| line.contains("dropped")).unwrap();
    assert!(told.ends_with("warn  dropped 3 log lines"), "{told}");
}

/// 1024 lines of 6 KiB took 6 MiB that no limit covered.
#[test]
fn long_lines_fill_the_queue_by_their_bytes() {
    let (logs, lines) = logs("info");
    let line = format!("{}\n", "x".repeat(6 * 1024 - 1));
    for _ in 0..100 {
        logs.push(line.clone());
    }
    assert_eq!(logs.waiting.load(Ordering::Relaxed), 42 * 6 * 1024);
    let text = written(&logs, &lines);
    assert_eq!(text.lines().filter(|line| line.starts_with('x')).count(), 42);
    assert!(text.contains("dropped 58 log lines"));
    assert_eq!(logs.waiting.load(Ordering::Relaxed), 0);
    logs.push(line);
    assert_eq!(lines.try_iter().count(), 1, "there is room again");
}

/// A line is short whatever the record contains.
#[test]
fn a_line_is_bounded() {
    let nasty = "\u{1b}".repeat(100_000);
    for shape in [Shape::Text, Shape::Json] {
        let pairs = [("payload", nasty.as_str())];
        let mut record = Record::builder();
        record.level(Level::Info).target("payload").key_values(&pairs);
        let line = line::render(shape, 0, &record.args(format_args!("{nasty}")).build());
        assert!(line.len() < 16 * 1024, "{} bytes", line.len());
    }
}

#[test]
fn a_burst_is_cut_and_counted() {
    let (logs, lines) = logs("info");
    for _ in 0..15 {
        say(&logs, Level::Info, "close", "closed");
    }
    say(&logs, Level::Info, "start", "other");
    let text = written(&logs, &lines);
    assert_eq!(text.lines().filter(|line| line.ends_with("closed")).count(), 10);
    assert_eq!(text.lines().filter(|line| line.ends_with("other")).count(), 1);
    assert!(text.ends_with("info  suppressed 5 kind=close\n"), "{text}");
}

/// Takes three bytes at a time, and fails with `Interrupted` or `WouldBlock` in between.
struct Awkward(Vec<u8>, u32);

impl Write for Awkward {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1 += 1;
        match self.1 % 3 {
            0 => Err(io::ErrorKind::Interrupted.into()),
            1 => Err(io::ErrorKind::WouldBlock.into()),
            _ => self.0.write(&bytes[..bytes.len().min(3)]),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn short_and_failed_writes_are_retried() {
    let mut to = Awkward(Vec::new(), 0);
    put(&mut to, "0123456789\n");
    assert_eq!(to.0, b"0123456789\n");
}

/// A pipe without a reader.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_broken_descriptor_is_given_up() {
    put(&mut Broken, "nobody reads this\n");
}
