//! Whom the answer of the active controller, or of the quorum, goes to.

use crate::api::{Parts, Ticket, envelope, refusal};
use crate::io::Outbox;
use crate::time::Now;
use crate::wire::{ErrorCode, RequestBody, RequestHeader, ResponseBody};
use bytestring::ByteString;

/// Whom an answer is for. Whoever holds it must give it to `Parts::answer_to` or `Parts::not_controller`, once.
#[derive(Debug)]
#[must_use]
pub enum AnswerTo {
    /// Who has sent the request to this node: a client, or another node.
    Sender { ticket: Ticket, client_id: Option<ByteString> },
    /// The client of another broker, which has forwarded the request in an envelope (KIP-590).
    Envelope { ticket: Ticket, header: RequestHeader },
    /// This node itself: the question of its channel with this number.
    Channel { question: u64, api_version: i16 },
}

impl AnswerTo {
    /// The version of the request.
    pub fn api_version(&self) -> i16 {
        match self {
            Self::Sender { ticket, .. } => ticket.api_version,
            Self::Envelope { header, .. } => header.api_version,
            Self::Channel { api_version, .. } => *api_version,
        }
    }
}

impl Parts {
    pub fn answer_to(&mut self, to: AnswerTo, body: ResponseBody, out: &mut Outbox) {
        match to {
            AnswerTo::Sender { ticket, .. } => self.replies.answer(ticket, body, out),
            AnswerTo::Envelope { ticket, header } => {
                self.replies.answer(ticket, envelope::wrap(&header, &body).into(), out);
            }
            AnswerTo::Channel { question, .. } => self.channel.answered(question, body),
        }
    }

    /// There is no active controller here that could decide `request`, or none any more. A broker asks the other one for
    /// its clients. Other nodes look for it themselves.
    pub fn not_controller(&mut self, now: Now, to: AnswerTo, request: RequestBody, out: &mut Outbox) {
        match to {
            AnswerTo::Sender { ticket, client_id } if self.forwards(ticket.listener) => {
                self.channel.forward(now.mono, ticket, client_id, request);
            }
            AnswerTo::Sender { ticket, .. } => {
                let body = refusal::not_controller(&request, ticket.api_version);
                self.replies.answer(ticket, body, out);
            }
            AnswerTo::Envelope { ticket, .. } => {
                self.replies.answer(ticket, envelope::refusal(ErrorCode::NotController).into(), out);
            }
            AnswerTo::Channel { question, .. } => self.channel.not_controller(now.mono, question),
        }
    }

    /// Whether the requests of this listener that are for the controller are brought to it.
    fn forwards(&self, listener: u16) -> bool {
        !self.stopping && !self.is_controller_listener(listener)
    }
}
