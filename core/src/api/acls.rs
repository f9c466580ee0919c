//! DescribeAcls, CreateAcls and DeleteAcls (KIP-140): refused, because there is no authorizer.

use crate::api::{Parts, Ticket};
use crate::io::Outbox;
use crate::wire::messages::create_acls_response::AclCreationResult;
use crate::wire::messages::delete_acls_response::DeleteAclsFilterResult;
use crate::wire::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
    DescribeAclsResponse,
};
use crate::wire::{ErrorCode, ResponseBody};

/// The code that stands for "unknown" in the enums of ACLs. Kafka closes the connection of a request that has it.
const UNKNOWN: i8 = 0;
const HAS_UNKNOWN: &str = "a request about ACLs has a resource type, pattern type, operation or permission of code 0";
const NO_AUTHORIZER: &str = "No Authorizer is configured.";

pub fn describe(parts: &mut Parts, ticket: Ticket, request: DescribeAclsRequest, out: &mut Outbox) {
    let asked = [request.resource_type_filter, request.pattern_type_filter, request.operation, request.permission_type];
    if asked.contains(&UNKNOWN) {
        return parts.replies.close(ticket, HAS_UNKNOWN, out);
    }
    let response = DescribeAclsResponse {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some("No Authorizer is configured on the broker".into()),
        ..Default::default()
    };
    parts.replies.answer(ticket, ResponseBody::DescribeAcls(response), out);
}

pub fn create(parts: &mut Parts, ticket: Ticket, request: CreateAclsRequest, out: &mut Outbox) {
    let has_unknown = request.creations.iter().any(|acl| {
        [acl.resource_type, acl.resource_pattern_type, acl.operation, acl.permission_type].contains(&UNKNOWN)
    });
    if has_unknown {
        return parts.replies.close(ticket, HAS_UNKNOWN, out);
    }
    let refused = |_| AclCreationResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(NO_AUTHORIZER.into()),
        ..Default::default()
    };
    let results = request.creations.into_iter().map(refused).collect();
    let response = CreateAclsResponse { results, ..Default::default() };
    parts.replies.answer(ticket, ResponseBody::CreateAcls(response), out);
}

pub fn delete(parts: &mut Parts, ticket: Ticket, request: DeleteAclsRequest, out: &mut Outbox) {
    let has_unknown = request.filters.iter().any(|filter| {
        [filter.resource_type_filter, filter.pattern_type_filter, filter.operation, filter.permission_type]
            .contains(&UNKNOWN)
    });
    if has_unknown {
        return parts.replies.close(ticket, HAS_UNKNOWN, out);
    }
    let refused = |_| DeleteAclsFilterResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(NO_AUTHORIZER.into()),
        ..Default::default()
    };
    let filter_results = request.filters.into_iter().map(refused).collect();
    let response = DeleteAclsResponse { filter_results, ..Default::default() };
    parts.replies.answer(ticket, ResponseBody::DeleteAcls(response), out);
}
