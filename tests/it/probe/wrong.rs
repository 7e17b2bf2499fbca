//! What a hop does that it should not do.

use super::bytes::Head;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Nothing,
    Cuts(Cut),
    AnswersPings,
    DropsPings,
    JoinsFragments,
    SplitsMessages,
    /// Ends the connections instead of passing on a Close.
    LosesClose,
    ChangesCode,
    LosesReason,
    ClosesSlowly,
    /// Passes bytes on later.
    Delays {
        ms: u64,
    },
    /// Passes on so many bytes a second on each connection.
    Narrow {
        bytes: u64,
    },
    /// Passes bytes on once a second only.
    Collects,
    /// Changes a bit of each compressed message.
    FlipsBits,
    LimitsMessages,
    LimitsHeads,
    /// The next socket is refused.
    LimitsSockets(usize),
    /// Those after so many connections are refused.
    RefusesAfter(usize),
    /// The next socket is refused, as the far end would do it: others have the sockets.
    LacksRoom(usize),
    /// Removes this field from requests.
    LosesThere(&'static str),
    /// Removes it from responses.
    LosesHere(&'static str),
    /// Adds these fields to requests.
    AddsThere(&'static [&'static str]),
    RewritesHost,
    RewritesPath,
    RewritesQuery,
    /// Decodes `%2F` in the path.
    DecodesPath,
    /// Replaces `//` in the path.
    MergesSlashes,
    /// Answers requests whose path contains `%2F`.
    RefusesPath,
    SpeaksHttp10,
    /// Writes field names in lower case.
    Lowercase,
    /// Answers all requests with this.
    Answers(&'static str),
    ChangesKey,
    NeverAnswers,
    ResetsClients,
    ResetsRequests,
    EndsAfter101,
    /// Nothing: unlike the others it passes on a FIN and leaves the other direction open.
    PassesFin,
}

/// A cut after a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) of: Silence,
    pub(super) after_ms: u64,
    pub(super) way: Way,
}

/// Whose silence leads to a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// That of both.
    Both,
    Client,
    Server,
    /// None: sockets are cut when they have this age.
    Age,
}

/// How connections are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Fin,
    Rst,
    Hole,
    Close,
    /// The same, in the middle of a frame where both sides have just spoken.
    TornClose,
}

impl Wrong {
    /// Whether the hop must know where frames begin and end.
    pub(super) fn reads_frames(self) -> bool {
        matches!(
            self,
            Self::AnswersPings
                | Self::DropsPings
                | Self::JoinsFragments
                | Self::SplitsMessages
                | Self::LosesClose
                | Self::ChangesCode
                | Self::LosesReason
                | Self::ClosesSlowly
                | Self::FlipsBits
                | Self::LimitsMessages
        )
    }

    pub(super) fn edit_request(self, head: &mut Head) {
        match self {
            Self::LosesThere(name) => head.remove(name),
            Self::AddsThere(fields) => fields.iter().for_each(|field| head.add(field)),
            Self::RewritesHost => {
                head.remove("Host");
                head.add("Host: backend:8080");
            }
            Self::RewritesPath => {
                head.edit_first_line(|line| line.replace("/app/echo", "/echo"));
            }
            Self::DecodesPath => head.edit_path(|path| path.replace("%2F", "/")),
            Self::MergesSlashes => head.edit_path(|path| path.replace("//", "/")),
            Self::RewritesQuery => head.edit_query(|query| query.replace("%2F", "/")),
            Self::SpeaksHttp10 => head.edit_first_line(|line| line.replace("/1.1", "/1.0")),
            Self::Lowercase => head.edit_lines(|line| {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                format!("{}:{value}", name.to_ascii_lowercase())
            }),
            _ => {}
        }
    }

    pub(super) fn edit_response(self, head: &mut Head) {
        match self {
            Self::LosesHere(name) => head.remove(name),
            Self::ChangesKey => {
                head.remove("Sec-WebSocket-Accept");
                head.add("Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
            }
            _ => {}
        }
    }
}
