//! From the script of an answer to its performance.

use super::body::{Ending, Pace, Pieces, Source};
use super::script::{Afterwards, Answer, Body, Framing, Start};

impl Answer {
    /// Waits as told, then says how to start.
    pub(super) async fn begin(&self) -> Start {
        if let Some(gate) = &self.hold {
            gate.pass().await;
        }
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        self.start
    }

    /// What this adds to the answer that was computed in its place.
    pub(super) fn onto(self, mut answer: Self) -> Self {
        for (name, value) in &self.headers {
            answer.headers.append(name, value.clone());
        }
        answer.delay += self.delay;
        answer.hold = self.hold.or(answer.hold);
        answer.pace = Pace {
            gap: self.pace.gap.or(answer.pace.gap),
            gate: self.pace.gate.or(answer.pace.gate),
            dribble: self.pace.dribble.or(answer.pace.dribble),
        };
        if !matches!(self.ending, Ending::Whole) {
            answer.ending = self.ending;
        }
        if self.start != Start::Head {
            answer.start = self.start;
        }
        if self.framing != Framing::Natural {
            answer.framing = self.framing;
        }
        if self.afterwards != Afterwards::KeepAlive {
            answer.afterwards = self.afterwards;
        }
        answer.half |= self.half;
        if self.coded { answer.gzip() } else { answer }
    }

    /// The length that the head announces, if the body has one.
    pub(super) fn length(&self) -> Option<usize> {
        match &self.body {
            Body::Bytes(bytes) if self.framing == Framing::Natural => {
                Some(bytes.len() + usize::from(self.half && bytes.is_empty()))
            }
            _ => None,
        }
    }

    /// The body in production.
    pub(super) fn into_pieces(self) -> Pieces {
        let (source, ending) = match self.body {
            Body::Bytes(bytes) if self.half => {
                (Source::Queue([bytes.slice(..bytes.len() / 2)].into()), Ending::CutAfter(1))
            }
            Body::Bytes(bytes) => (Source::Queue([bytes].into()), self.ending),
            Body::Events(events) => (Source::Queue(events.into()), self.ending),
            Body::Endless(piece, counter) => (Source::Endless { piece, counter }, self.ending),
            Body::Raw(_) | Body::Api | Body::ApiUntil(_) | Body::Fault(_) | Body::Computed(_) => {
                (Source::Queue([].into()), Ending::CutAfter(0))
            }
        };
        Pieces::new(source, self.pace, ending)
    }
}
