//! The door's part in asking other nodes: what the parts ask goes to the peers, and the answers go to their owners.

use super::Broker;
use crate::ids::LinkId;
use crate::io::{LinkEvent, Outbox, PeerOwner};
use crate::time::Now;

impl Broker {
    pub(super) fn link(&mut self, now: Now, link: LinkId, event: LinkEvent, out: &mut Outbox) {
        self.peers.handle_link(now.mono, link, event, out);
        self.hand_out_answers(now, out);
    }

    pub(super) fn tick_peers(&mut self, now: Now, out: &mut Outbox) {
        if self.peers.deadline().is_some_and(|deadline| deadline <= now.mono) {
            self.peers.tick(now.mono, out);
            self.hand_out_answers(now, out);
        }
    }

    /// Hands over what was asked in this input. Answers that are clear at once come with the next tick, so that a part
    /// that asks again at every failure cannot keep an input from ending.
    pub(super) fn ask_peers(&mut self, now: Now, out: &mut Outbox) {
        let asks = out.take_asks();
        if !asks.is_empty() {
            self.peers.ask(now.mono, asks, out);
        }
    }

    /// Gives each answer to its owner.
    fn hand_out_answers(&mut self, now: Now, out: &mut Outbox) {
        for answer in self.peers.take_answers() {
            match answer.id.owner {
                PeerOwner::Quorum => {
                    let events = self.parts.quorum().handle_answer(now, answer, out);
                    self.quorum_events(now, events, out);
                }
                PeerOwner::Controller | PeerOwner::Life => self.controller_answer(now, answer),
                PeerOwner::Fetchers(_) => self.fetcher_answer(now, answer, out),
            }
        }
    }
}
