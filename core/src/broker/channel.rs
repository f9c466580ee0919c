//! The door's part in asking the active controller: what the parts ask goes to the controller of this node or of another
//! one, and the answers go to who has asked.

use super::{Broker, Timer};
use crate::api::{self, AnswerTo, Asker, Outcome, Unanswered, envelope, refusal};
use crate::io::{Answer, Ask, Outbox, PeerId};
use crate::time::Now;
use crate::wire::{ErrorCode, RequestBody};

impl Broker {
    /// Asks what is to be asked, and hands out what was answered, until there is nothing more to do now.
    pub(super) fn ask_controller(&mut self, now: Now, out: &mut Outbox) {
        // The timer is not set while the channel is idle.
        if self.parts.channel.is_idle() && !self.life.is_due(now.mono) {
            return;
        }
        loop {
            if self.life.is_due(now.mono) {
                self.live(now, out);
            }
            self.parts.channel.expire(now.mono);
            let has_asked = self.ask_next(now, out);
            let outcome = self.parts.channel.take_result();
            if !has_asked && outcome.is_none() {
                break;
            }
            if let Some(outcome) = outcome {
                self.channel_answered(now, outcome, out);
            }
        }
        let deadline = self.parts.channel.deadline(now.mono);
        self.timers.set(Timer::Channel, deadline);
    }

    /// Asks one question. False if there is none, or nobody who can be asked.
    fn ask_next(&mut self, now: Now, out: &mut Outbox) -> bool {
        if !self.parts.channel.waits() {
            return false;
        }
        let is_here = self.parts.controller.is_some();
        let remote = if is_here { None } else { self.parts.remote_controller() };
        if !is_here && remote.is_none() {
            return false;
        }
        let Some((number, question)) = self.parts.channel.take_next(now.mono) else { return false };
        if let Some(address) = remote {
            let body = match (question.client_header(), &question.asker) {
                (Some(header), Asker::Client { ticket, .. }) => match self.parts.replies.address(ticket.conn) {
                    Some(client) => envelope::seal(&header, &question.request, client).into(),
                    // The client is gone.
                    None => return true,
                },
                _ => question.request.clone(),
            };
            let (id, timeout_ms) = (PeerId { owner: question.owner(), seq: number }, question.timeout_ms);
            let versions = body.api_key().versions().expect("the controller is asked by live APIs");
            out.ask(Ask { id, to: address, body, versions, timeout_ms });
            self.parts.channel.asks(number, question);
        } else if let Asker::Client { ticket, client_id } = question.asker {
            let to = AnswerTo::Sender { ticket, client_id };
            api::administration::handle(&mut self.parts, now, to, question.request, out);
        } else {
            let request = question.request.clone();
            let versions = request.api_key().versions().expect("the controller is asked by live APIs");
            self.parts.channel.asks(number, question);
            let to = AnswerTo::Channel { question: number, api_version: *versions.end() };
            api::administration::handle(&mut self.parts, now, to, request, out);
        }
        self.quorum_told(now, out);
        self.watch_sessions();
        true
    }

    /// Another node has answered a question of the channel, or has not.
    pub(super) fn controller_answer(&mut self, now: Now, answer: Answer) {
        let body = answer.result.map(|answered| answered.body);
        self.parts.channel.handle_answer(now.mono, answer.id.seq, body);
    }

    fn channel_answered(&mut self, now: Now, outcome: Outcome, out: &mut Outbox) {
        match outcome.asker {
            Asker::BrokerLife => self.life_answered(now, outcome.result, out),
            Asker::ControllerLife => self.controller_answered(now, outcome.result, out),
            Asker::ProducerIds => {
                api::init_producer_id::block_answered(&mut self.parts, now, outcome.result.ok(), out);
            }
            Asker::InSyncReplicas => self.isr_changes_answered(now, outcome.result, out),
            // Whatever has become of the creation, the client sees which topics there are.
            Asker::TopicCreation { ticket, request } => api::metadata::answer(&mut self.parts, ticket, &request, out),
            Asker::Client { ticket, .. } => {
                let version = ticket.api_version;
                match outcome.result {
                    Ok(body) => self.parts.replies.answer(ticket, body, out),
                    Err(Unanswered::Refused(ErrorCode::UnsupportedVersion)) => {
                        let why = "the active controller does not serve requests of this kind and version";
                        self.parts.replies.close(ticket, why, out);
                    }
                    Err(why) => {
                        let body = unanswered(&outcome.request, version, why);
                        self.parts.replies.answer(ticket, body, out);
                    }
                }
            }
        }
    }
}

/// What a client is told whose request the controller has not answered, as Kafka's `ForwardingManager` tells it.
fn unanswered(request: &RequestBody, version: i16, why: Unanswered) -> crate::wire::ResponseBody {
    let (error, text) = match why {
        Unanswered::TimedOut => (
            ErrorCode::RequestTimedOut,
            "No active controller has answered in time. A majority of the controllers must run.",
        ),
        Unanswered::Unsupported | Unanswered::Refused(_) => {
            (ErrorCode::UnknownServerError, "The active controller could not be given the request.")
        }
    };
    refusal::response(request, version, error, text)
}
