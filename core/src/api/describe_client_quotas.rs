//! DescribeClientQuotas: the quotas in the metadata (KIP-546). No quota is enforced yet.

use crate::api::{Parts, Ticket};
use crate::controller::{KeptKey, Refusal};
use crate::io::Outbox;
use crate::wire::messages::DescribeClientQuotasRequest;
use crate::wire::messages::describe_client_quotas_response::{
    DescribeClientQuotasResponse, EntityData, EntryData, ValueData,
};
use crate::wire::{ErrorCode, MetadataRecord, ResponseBody};
use bytestring::ByteString;
use std::collections::{BTreeMap, BTreeSet};

const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const SPECIFIED: i8 = 2;

pub fn handle(parts: &mut Parts, ticket: Ticket, request: DescribeClientQuotasRequest, out: &mut Outbox) {
    let response = match Filter::of(&request) {
        Ok(filter) => DescribeClientQuotasResponse {
            entries: Some(entries(parts, &filter)),
            error_message: None,
            ..Default::default()
        },
        Err(refusal) => DescribeClientQuotasResponse {
            error_code: refusal.error.code(),
            error_message: refusal.message,
            entries: None,
            ..Default::default()
        },
    };
    parts.replies.answer(ticket, ResponseBody::DescribeClientQuotas(response), out);
}

fn entries(parts: &Parts, filter: &Filter) -> Vec<EntryData> {
    let mut found: BTreeMap<&Entity, Vec<ValueData>> = BTreeMap::new();
    for (key, record) in parts.image.kept() {
        if let (KeptKey::Quota(entity, key), MetadataRecord::ClientQuota(quota)) = (key, record)
            && filter.matches(entity)
        {
            let value = ValueData { key: key.clone(), value: quota.value, ..Default::default() };
            found.entry(entity).or_default().push(value);
        }
    }
    let told = |entity: &Entity| {
        let part = |(kind, name): &(ByteString, Option<ByteString>)| EntityData {
            entity_type: kind.clone(),
            entity_name: name.clone(),
            ..Default::default()
        };
        entity.iter().map(part).collect()
    };
    found.into_iter().map(|(entity, values)| EntryData { entity: told(entity), values, ..Default::default() }).collect()
}

/// Whom a quota is for: types of names such as `user`, each with a name, or with `None` for the default of all names.
type Entity = Vec<(ByteString, Option<ByteString>)>;

/// The filter of a request: which entities it asks for.
struct Filter<'a> {
    exact: BTreeMap<&'a str, Option<&'a str>>,
    any: BTreeSet<&'a str>,
    strict: bool,
}

impl<'a> Filter<'a> {
    /// Reads the filter of a request. Refuses what Kafka refuses, in Kafka's words.
    fn of(request: &'a DescribeClientQuotasRequest) -> Result<Self, Refusal> {
        let invalid = |text: String| Refusal::new(ErrorCode::InvalidRequest, text);
        let mut filter = Self { exact: BTreeMap::new(), any: BTreeSet::new(), strict: request.strict };
        for component in &request.components {
            let kind = &*component.entity_type;
            let given = component.r#match.as_deref();
            if kind.is_empty() {
                return Err(invalid("Invalid empty entity type.".to_owned()));
            }
            if filter.names(kind) {
                return Err(invalid(format!("Entity type {kind} cannot appear more than once in the filter.")));
            }
            if !matches!(kind, "ip" | "user" | "client-id") {
                return Err(Refusal::new(ErrorCode::UnsupportedVersion, format!("Unsupported entity type {kind}")));
            }
            match (component.match_type, given) {
                (EXACT, Some(name)) => drop(filter.exact.insert(kind, Some(name))),
                (DEFAULT, None) => drop(filter.exact.insert(kind, None)),
                (SPECIFIED, None) => drop(filter.any.insert(kind)),
                (EXACT, None) => {
                    return Err(invalid(
                        "Request specified MATCH_TYPE_EXACT, but set match string to null.".to_owned(),
                    ));
                }
                (code @ (DEFAULT | SPECIFIED), Some(_)) => {
                    let name = if code == DEFAULT { "MATCH_TYPE_DEFAULT" } else { "MATCH_TYPE_SPECIFIED" };
                    return Err(invalid(format!("Request specified {name}, but also specified a match string.")));
                }
                (code, _) => return Err(invalid(format!("Unknown match type {code}"))),
            }
        }
        if filter.names("ip") && (filter.names("user") || filter.names("client-id")) {
            return Err(invalid(
                "Invalid entity filter component combination. IP filter component should not be used with user or \
                 clientId filter component."
                    .to_owned(),
            ));
        }
        Ok(filter)
    }

    fn names(&self, kind: &str) -> bool {
        self.exact.contains_key(kind) || self.any.contains(kind)
    }

    fn matches(&self, entity: &Entity) -> bool {
        let part = |kind: &str| entity.iter().find(|(known, _)| *known == kind).map(|(_, name)| name.as_deref());
        let exact = self.exact.iter().all(|(kind, name)| part(kind) == Some(*name));
        let any = self.any.iter().all(|kind| part(kind).is_some());
        exact && any && (!self.strict || entity.len() == self.exact.len() + self.any.len())
    }
}
