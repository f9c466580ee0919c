//! DescribeUserScramCredentials: which users have credentials, but never the credentials themselves (KIP-554).

use crate::api::{Parts, Ticket};
use crate::controller::KeptKey;
use crate::io::Outbox;
use crate::wire::messages::DescribeUserScramCredentialsRequest;
use crate::wire::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResponse, DescribeUserScramCredentialsResult,
};
use crate::wire::{ErrorCode, MetadataRecord, ResponseBody};
use bytestring::ByteString;
use std::collections::BTreeMap;

pub fn handle(parts: &mut Parts, ticket: Ticket, request: DescribeUserScramCredentialsRequest, out: &mut Outbox) {
    let mut known: BTreeMap<ByteString, Vec<CredentialInfo>> = BTreeMap::new();
    for (key, record) in parts.image.kept() {
        if let (KeptKey::Scram(user, mechanism), MetadataRecord::UserScramCredential(credential)) = (key, record) {
            let (mechanism, iterations) = (*mechanism, credential.iterations);
            let info = CredentialInfo { mechanism, iterations, ..Default::default() };
            known.entry(user.clone()).or_default().push(info);
        }
    }
    // How often the request names each user. A request without names asks for all users.
    let mut asked: BTreeMap<ByteString, usize> = BTreeMap::new();
    for user in request.users.into_iter().flatten() {
        *asked.entry(user.name).or_default() += 1;
    }
    if asked.is_empty() {
        asked = known.keys().map(|user| (user.clone(), 1)).collect();
    }
    let results = asked
        .into_iter()
        .map(|(user, times)| {
            let refused = |error: ErrorCode, why: &str| DescribeUserScramCredentialsResult {
                error_code: error.code(),
                error_message: Some(format!("{why}{user}").into()),
                ..Default::default()
            };
            let result = match known.remove(&user) {
                _ if times > 1 => refused(
                    ErrorCode::DuplicateResource,
                    "Cannot describe SCRAM credentials for the same user twice in a single request: ",
                ),
                None => {
                    refused(ErrorCode::ResourceNotFound, "Attempt to describe a user credential that does not exist: ")
                }
                Some(credential_infos) => {
                    DescribeUserScramCredentialsResult { credential_infos, error_message: None, ..Default::default() }
                }
            };
            DescribeUserScramCredentialsResult { user: user.clone(), ..result }
        })
        .collect();
    let response = DescribeUserScramCredentialsResponse { results, error_message: None, ..Default::default() };
    parts.replies.answer(ticket, ResponseBody::DescribeUserScramCredentials(response), out);
}
