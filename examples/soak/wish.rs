//! What a request asks of the simulated upstream, and the text that both sides then expect.

use std::{fmt, str::FromStr, time::Duration};

/// The header that carries it through the proxy.
pub(crate) const HEADER: &str = "x-soak";

/// Several, so that keys rest for one and not for another.
const MODELS: [&str; 4] = ["gpt-4o", "gpt-4o-mini", "o3", "text-model"];

/// One request's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Stands in the answer, so that an answer to another request is noticed.
    pub(crate) id: u64,
    /// How long the upstream thinks.
    pub(crate) delay: Duration,
    pub(crate) answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A document with so many bytes of padding.
    Document { padding: usize },
    /// So many events, so far apart.
    Stream { events: usize, pause: Duration },
    /// A stream of so many events that ends before the last of them, without the mark of its end.
    Broken { events: usize },
}

impl Wish {
    /// The whole answer; of a broken one what it would have been.
    pub(crate) fn text(&self) -> Vec<u8> {
        match self.answer {
            Answer::Document { padding } => {
                let padding = "x".repeat(padding);
                format!("{{\"id\":{},\"choices\":[],\"padding\":\"{padding}\"}}", self.id).into_bytes()
            }
            Answer::Stream { events, .. } | Answer::Broken { events } => {
                (0..events).flat_map(|number| self.event(number)).collect()
            }
        }
    }

    /// One event of a stream.
    pub(crate) fn event(&self, number: usize) -> Vec<u8> {
        let id = self.id;
        format!("data: {{\"id\":{id},\"choices\":[{{\"delta\":{{\"content\":\"{number}\"}}}}]}}\n\n")
            .into_bytes()
    }

    /// The body of the request, with so many bytes of padding.
    pub(crate) fn body(&self, padding: usize) -> Vec<u8> {
        let (id, text) = (self.id, "y".repeat(padding));
        let stream = !matches!(self.answer, Answer::Document { .. });
        let model = MODELS[usize::try_from(id).unwrap_or_default() % MODELS.len()];
        format!(
            "{{\"model\":\"{model}\",\"stream\":{stream},\"messages\":[{{\"role\":\"user\",\"content\":\"hello {text}\"\
             }}],\"user\":\"{id}\"}}"
        )
        .into_bytes()
    }

    /// Whether this is such a body, with however much padding.
    pub(crate) fn is_of(&self, body: &[u8]) -> bool {
        body.len().checked_sub(self.body(0).len()).is_some_and(|padding| self.body(padding) == body)
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, delay, answer } = self;
        write!(f, "{id} {} ", delay.as_millis())?;
        match answer {
            Answer::Document { padding } => write!(f, "document {padding} 0"),
            Answer::Stream { events, pause } => write!(f, "stream {events} {}", pause.as_millis()),
            Answer::Broken { events } => write!(f, "broken {events} 0"),
        }
    }
}

impl FromStr for Wish {
    type Err = NoWish;

    fn from_str(text: &str) -> Result<Self, NoWish> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(NoWish);
        let number = |word: &str| word.parse::<u64>().map_err(|_| NoWish);
        let id = number(word()?)?;
        let delay = Duration::from_millis(number(word()?)?);
        let kind = word()?;
        let count = usize::try_from(number(word()?)?).map_err(|_| NoWish)?;
        let pause = Duration::from_millis(number(word()?)?);
        let answer = match kind {
            "document" => Answer::Document { padding: count },
            "stream" => Answer::Stream { events: count, pause },
            "broken" => Answer::Broken { events: count },
            _ => return Err(NoWish),
        };
        Ok(Self { id, delay, answer })
    }
}

/// The header says something else.
#[derive(Debug, thiserror::Error)]
#[error("no wish")]
pub(crate) struct NoWish;
