//! A manual page and completions for three shells, made from the tables of flags. The binary does
//! not contain them: `cargo run --example manual` prints them.

use std::fmt::Write;

use super::help::Page;
use super::table::{self, Flag, Table, env_name};
use super::{connect, flags, healthcheck, load, probe, serve};
use crate::parts;

struct Chapter {
    name: &'static str,
    page: &'static Page,
    flags: Vec<Entry>,
}

pub(crate) struct Entry {
    name: &'static str,
    /// The placeholder; empty for a switch.
    value: &'static str,
    help: &'static str,
    default: &'static str,
}

impl Entry {
    fn new<D>(flag: &Flag<D>) -> Self {
        let value = flag.takes.value().unwrap_or("");
        Self { name: flag.name, value, help: flag.help, default: flag.default_text() }
    }

    /// The possible values, if the placeholder lists them.
    fn words(&self) -> Option<impl Iterator<Item = &'static str> + use<>> {
        let plain = |word: &str| word.chars().all(|c| c.is_ascii_lowercase());
        let all = self.value.contains('|') && self.value.split('|').all(plain);
        all.then(|| self.value.split('|'))
    }

    fn is_file(&self) -> bool {
        matches!(self.value, "FILE" | "DIR" | "PATH")
    }
}

fn chapters() -> Vec<Chapter> {
    fn chapter<D>(name: &'static str, page: &'static Page, table: &Table<D>) -> Chapter {
        Chapter { name, page, flags: entries(table) }
    }
    let own = [
        chapter("serve", &serve::PAGE, flags::SERVE),
        chapter("healthcheck", &healthcheck::PAGE, healthcheck::FLAGS),
        chapter("load", &load::PAGE, load::FLAGS),
        chapter("connect", &connect::PAGE, connect::FLAGS),
        chapter("probe", &probe::PAGE, probe::FLAGS),
    ];
    let of_parts = parts::commands().map(|command| {
        let parts::Command { verb, page, entries, .. } = command;
        Chapter { name: verb.name, page, flags: entries() }
    });
    own.into_iter().chain(of_parts).collect()
}

pub(crate) fn entries<D>(table: &Table<D>) -> Vec<Entry> {
    table::flags(table).into_iter().map(Entry::new).collect()
}

/// The manual page, for `man`.
#[must_use]
pub fn man() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let chapters = chapters();
    let mut text =
        format!(".TH WSPULSE 1 \"\" \"wspulse {version}\" \"User Commands\"\n.SH NAME\n");
    let about = escaped(chapters[0].page.about);
    let _ = writeln!(text, "wspulse \\- {about}\n.SH SYNOPSIS\n.nf");
    for chapter in &chapters {
        // "usage: wspulse load URL [OPTIONS]"; the server's line goes on with a description.
        let usage = chapter.page.synopsis.trim_start_matches("usage: wspulse ");
        let usage = usage.lines().next().and_then(|line| line.split("  ").next());
        let _ = writeln!(text, "\\fBwspulse\\fR {}", escaped(usage.unwrap_or_default()));
    }
    text.push_str(".fi\n");
    for chapter in &chapters {
        let _ = writeln!(text, ".SH {}", chapter.name.to_uppercase());
        let _ = writeln!(text, ".nf\n{}\n.fi", escaped(chapter.page.synopsis));
        for flag in &chapter.flags {
            let (name, value) = (escaped(flag.name), escaped(flag.value));
            let _ = writeln!(text, ".TP\n\\fB\\-\\-{name}\\fR \\fI{value}\\fR");
            let _ = writeln!(text, "{} (\\fB{}\\fR)", escaped(flag.help), env_name(flag.name));
            if !flag.default.is_empty() {
                let _ = writeln!(text, ".br\nDefault: {}", escaped(flag.default));
            }
        }
        let _ = writeln!(text, ".PP\n.nf\n{}.fi", escaped(chapter.page.foot));
    }
    text
}

/// Escapes what troff would interpret.
fn escaped(text: &str) -> String {
    let ascii = text.replace('…', "...");
    let escaped = ascii.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    let dotted = escaped.replace("\n.", "\n\\&.");
    if dotted.starts_with('.') { format!("\\&{dotted}") } else { dotted }
}

/// Completions for bash.
#[must_use]
pub fn bash() -> String {
    let chapters = chapters();
    let names: Vec<_> = chapters.iter().map(|chapter| chapter.name).collect();
    let mut flags = String::new();
    let mut values = String::new();
    for chapter in &chapters {
        let all: Vec<_> = chapter.flags.iter().map(|flag| format!("--{}", flag.name)).collect();
        let _ = writeln!(flags, "        {}) flags='{}' ;;", chapter.name, all.join(" "));
        for flag in &chapter.flags {
            let reply = match flag.words() {
                Some(words) => format!("-W '{}'", words.collect::<Vec<_>>().join(" ")),
                None if flag.is_file() => "-f".to_owned(),
                None if flag.value.is_empty() => continue,
                None => "-W ''".to_owned(),
            };
            let (name, flag) = (chapter.name, flag.name);
            let _ = writeln!(
                values,
                "        {name},--{flag}) COMPREPLY=($(compgen {reply} -- \"$now\")); return ;;"
            );
        }
    }
    format!(
        "_wspulse() {{
    local now=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} verb=serve flags
    case ${{COMP_WORDS[1]}} in {verbs}) verb=${{COMP_WORDS[1]}} ;; esac
    case $verb,$before in
{values}    esac
    case $verb in
{flags}    esac
    [ \"$COMP_CWORD\" -eq 1 ] && flags=\"{words} help $flags\"
    COMPREPLY=($(compgen -W \"$flags --help --version\" -- \"$now\"))
}}
complete -F _wspulse wspulse
",
        verbs = names.join("|"),
        words = names.join(" "),
    )
}

/// Completions for zsh.
#[must_use]
pub fn zsh() -> String {
    let mut text = String::from("#compdef wspulse\nlocal verb=serve\nlocal -a flags\n");
    let chapters = chapters();
    let names: Vec<_> = chapters.iter().map(|chapter| chapter.name).collect();
    let _ = writeln!(
        text,
        "case ${{words[2]}} in {}) verb=${{words[2]}} ;; esac\ncase $verb in",
        names.join("|")
    );
    for chapter in &chapters {
        let _ = writeln!(text, "{})\n    flags=(", chapter.name);
        for flag in &chapter.flags {
            let help = quoted(flag.help).replace('[', "(").replace(']', ")");
            let takes = match flag.words() {
                Some(words) => format!(":value:({})", words.collect::<Vec<_>>().join(" ")),
                None if flag.is_file() => ":file:_files".to_owned(),
                None if flag.value.is_empty() => String::new(),
                None => format!(":{}: ", flag.value.replace([':', '|'], " ")),
            };
            let _ = writeln!(text, "        '*--{}[{help}]{takes}'", flag.name);
        }
        text.push_str("    ) ;;\n");
    }
    let _ = writeln!(
        text,
        "esac\n_arguments '1::command:({} help)' '*::argument: ' \\
    '--help[print help]' '--version[print the version]' $flags",
        names.join(" ")
    );
    text
}

/// Completions for fish.
#[must_use]
pub fn fish() -> String {
    let mut text = String::new();
    let chapters = chapters();
    let verbs = chapters[1..].iter().map(|chapter| chapter.name).collect::<Vec<_>>().join(" ");
    for chapter in &chapters {
        let (name, about) = (chapter.name, quoted(chapter.page.about));
        let _ = writeln!(
            text,
            "complete -c wspulse -n __fish_use_subcommand -f -a {name} -d '{about}'"
        );
        let when = match name {
            "serve" => format!("not __fish_seen_subcommand_from {verbs}"),
            name => format!("__fish_seen_subcommand_from {name}"),
        };
        for flag in &chapter.flags {
            let takes = match flag.words() {
                Some(words) => format!(" -x -a '{}'", words.collect::<Vec<_>>().join(" ")),
                None if flag.is_file() => " -r".to_owned(),
                None if flag.value.is_empty() => String::new(),
                None => " -x".to_owned(),
            };
            let (name, help) = (flag.name, quoted(flag.help));
            let _ = writeln!(text, "complete -c wspulse -n '{when}' -l {name}{takes} -d '{help}'");
        }
    }
    text
}

/// For use inside single quotes.
fn quoted(text: &str) -> String {
    text.replace('\'', "’")
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_command_is_forgotten() {
        let chapters: Vec<_> = super::chapters().iter().map(|chapter| chapter.name).collect();
        let verbs: Vec<_> = super::super::verbs().map(|verb| verb.name).collect();
        assert_eq!(chapters, verbs);
    }
}
