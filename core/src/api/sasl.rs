//! SaslHandshake and SaslAuthenticate on a connection that needs no authentication (KIP-43, KIP-152). The connection
//! stays open.

use crate::api::{Parts, Ticket};
use crate::io::Outbox;
use crate::wire::messages::{SaslAuthenticateResponse, SaslHandshakeResponse};
use crate::wire::{ErrorCode, ResponseBody};

pub fn handshake(parts: &mut Parts, ticket: Ticket, out: &mut Outbox) {
    let response = SaslHandshakeResponse { error_code: ErrorCode::IllegalSaslState.code(), mechanisms: Vec::new() };
    parts.replies.answer(ticket, ResponseBody::SaslHandshake(response), out);
}

pub fn authenticate(parts: &mut Parts, ticket: Ticket, out: &mut Outbox) {
    let response = SaslAuthenticateResponse {
        error_code: ErrorCode::IllegalSaslState.code(),
        error_message: Some("SaslAuthenticate request received after successful authentication".into()),
        ..Default::default()
    };
    parts.replies.answer(ticket, ResponseBody::SaslAuthenticate(response), out);
}
