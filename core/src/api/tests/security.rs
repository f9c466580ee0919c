//! What clients are told that want to authenticate or to manage ACLs, while there is neither SASL nor an authorizer.

use super::*;
use crate::wire::messages::create_acls_request::AclCreation;
use crate::wire::messages::delete_acls_request::DeleteAclsFilter;
use crate::wire::messages::{
    CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
};

#[test]
fn a_connection_without_sasl_refuses_to_authenticate_and_stays_open() {
    let mut bench = Bench::new(&[]);
    let illegal = code(ErrorCode::IllegalSaslState);
    let handshake = SaslHandshakeRequest { mechanism: "PLAIN".into() };
    match bench.ask(1, RequestBody::SaslHandshake(handshake)) {
        ResponseBody::SaslHandshake(response) => {
            assert_eq!((response.error_code, response.mechanisms), (illegal, vec![]));
        }
        other => panic!("{other:?}"),
    }
    match bench.ask(2, RequestBody::SaslAuthenticate(SaslAuthenticateRequest::default())) {
        ResponseBody::SaslAuthenticate(response) => {
            assert_eq!((response.error_code, response.session_lifetime_ms), (illegal, 0));
            assert!(response.error_message.is_some() && response.auth_bytes.is_empty());
        }
        other => panic!("{other:?}"),
    }
    assert!(bench.closed.is_empty());
}

#[test]
fn without_an_authorizer_acls_are_neither_told_nor_changed() {
    let mut bench = Bench::new(&[]);
    let disabled = code(ErrorCode::SecurityDisabled);
    let describe = |resource_type_filter: i8| {
        RequestBody::DescribeAcls(DescribeAclsRequest {
            resource_type_filter,
            pattern_type_filter: 1,
            operation: 1,
            permission_type: 1,
            ..Default::default()
        })
    };
    match bench.ask(3, describe(1)) {
        ResponseBody::DescribeAcls(response) => {
            assert_eq!((response.error_code, response.resources), (disabled, vec![]));
        }
        other => panic!("{other:?}"),
    }
    let create = AclCreation {
        resource_type: 2,
        resource_pattern_type: 3,
        operation: 2,
        permission_type: 3,
        ..Default::default()
    };
    let creations = CreateAclsRequest { creations: vec![create.clone(), create], ..Default::default() };
    match bench.ask(3, RequestBody::CreateAcls(creations)) {
        ResponseBody::CreateAcls(response) => {
            let codes: Vec<i16> = response.results.iter().map(|result| result.error_code).collect();
            assert_eq!(codes, [disabled, disabled]);
        }
        other => panic!("{other:?}"),
    }
    let filter = DeleteAclsFilter {
        resource_type_filter: 1,
        pattern_type_filter: 1,
        operation: 1,
        permission_type: 1,
        ..Default::default()
    };
    let filters = DeleteAclsRequest { filters: vec![filter.clone(), filter], ..Default::default() };
    match bench.ask(3, RequestBody::DeleteAcls(filters)) {
        ResponseBody::DeleteAcls(response) => {
            let codes: Vec<i16> = response.filter_results.iter().map(|result| result.error_code).collect();
            assert_eq!(codes, [disabled, disabled]);
        }
        other => panic!("{other:?}"),
    }
    assert!(bench.closed.is_empty());
    bench.send(3, describe(0));
    assert_eq!(bench.closed.len(), 1, "the code 0 is no resource type");
}
