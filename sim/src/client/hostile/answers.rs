//! Reads the answer to an attack: its error codes, and what later attacks can use.

use super::attacks::Attack;
use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsResponse, CreateAclsResponse, CreatePartitionsResponse, CreateTopicsResponse, DeleteAclsResponse,
    DeleteRecordsResponse, DeleteTopicsResponse, DescribeAclsResponse, DescribeClientQuotasResponse,
    DescribeConfigsResponse, DescribeQuorumResponse, DescribeUserScramCredentialsResponse, ElectLeadersResponse,
    FetchResponse, InitProducerIdResponse, ListConfigResourcesResponse, ListOffsetsResponse,
    ListPartitionReassignmentsResponse, MetadataResponse, OffsetForLeaderEpochResponse, ProduceResponse,
    ResponseHeader, SaslAuthenticateResponse, SaslHandshakeResponse, UpdateFeaturesResponse,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion};

#[derive(Debug, Default)]
pub struct Told {
    pub codes: Vec<i16>,
    pub topic_ids: Vec<(String, uuid::Uuid)>,
    pub producer_id: Option<i64>,
    pub fetch_session: Option<i32>,
    /// The key, lowest and highest version of each request that is served.
    pub versions: Vec<(i16, i16, i16)>,
}

/// Decodes an answer. The error says why it does not decode.
pub fn read_answer(attack: &Attack, mut frame: Bytes) -> Result<Told, String> {
    let mut told = Told::default();
    match attack.key {
        0 => {
            let response: ProduceResponse = body(attack, &mut frame)?;
            let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
            told.codes.extend(partitions.map(|partition| partition.error_code));
        }
        1 => {
            let response: FetchResponse = body(attack, &mut frame)?;
            told.codes.extend((response.error_code != 0).then_some(response.error_code));
            let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
            told.codes.extend(partitions.map(|partition| partition.error_code));
            told.fetch_session = Some(response.session_id);
        }
        2 => {
            let response: ListOffsetsResponse = body(attack, &mut frame)?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            told.codes.extend(partitions.map(|partition| partition.error_code));
        }
        3 => {
            let response: MetadataResponse = body(attack, &mut frame)?;
            told.codes.extend(response.topics.iter().map(|topic| topic.error_code));
            let known = response.topics.iter().filter(|topic| topic.error_code == 0);
            let named = known.filter_map(|topic| Some((topic.name.as_ref()?.0.to_string(), topic.topic_id)));
            told.topic_ids = named.collect();
        }
        17 => {
            let response: SaslHandshakeResponse = body(attack, &mut frame)?;
            told.codes.push(response.error_code);
        }
        18 => {
            let response: ApiVersionsResponse = body(attack, &mut frame)?;
            told.codes.push(response.error_code);
            let ranges = response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version));
            told.versions = ranges.collect();
        }
        19 => {
            let response: CreateTopicsResponse = body(attack, &mut frame)?;
            told.codes.extend(response.topics.iter().map(|topic| topic.error_code));
        }
        20 => {
            let response: DeleteTopicsResponse = body(attack, &mut frame)?;
            told.codes.extend(response.responses.iter().map(|topic| topic.error_code));
        }
        21 => {
            let response: DeleteRecordsResponse = body(attack, &mut frame)?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            told.codes.extend(partitions.map(|partition| partition.error_code));
        }
        22 => {
            let response: InitProducerIdResponse = body(attack, &mut frame)?;
            told.codes.push(response.error_code);
            told.producer_id = (response.error_code == 0).then_some(response.producer_id.0);
        }
        23 => {
            let response: OffsetForLeaderEpochResponse = body(attack, &mut frame)?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            told.codes.extend(partitions.map(|partition| partition.error_code));
        }
        29 => {
            let response: DescribeAclsResponse = body(attack, &mut frame)?;
            told.codes.push(response.error_code);
        }
        30 => {
            let response: CreateAclsResponse = body(attack, &mut frame)?;
            told.codes.extend(response.results.iter().map(|result| result.error_code));
        }
        31 => {
            let response: DeleteAclsResponse = body(attack, &mut frame)?;
            told.codes.extend(response.filter_results.iter().map(|result| result.error_code));
        }
        32 => {
            let response: DescribeConfigsResponse = body(attack, &mut frame)?;
            told.codes.extend(response.results.iter().map(|result| result.error_code));
        }
        36 => {
            let response: SaslAuthenticateResponse = body(attack, &mut frame)?;
            told.codes.push(response.error_code);
        }
        37 => {
            let response: CreatePartitionsResponse = body(attack, &mut frame)?;
            told.codes.extend(response.results.iter().map(|result| result.error_code));
        }
        43 => {
            let response: ElectLeadersResponse = body(attack, &mut frame)?;
            told.codes.extend((response.error_code != 0).then_some(response.error_code));
            let partitions = response.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
            told.codes.extend(partitions.map(|partition| partition.error_code));
        }
        46 => {
            let response: ListPartitionReassignmentsResponse = body(attack, &mut frame)?;
            if !response.topics.is_empty() {
                return Err(format!("{} topics move, and nobody asked for it", response.topics.len()));
            }
            told.codes.push(response.error_code);
        }
        48 => {
            let response: DescribeClientQuotasResponse = body(attack, &mut frame)?;
            told.codes.push(response.error_code);
        }
        50 => {
            let response: DescribeUserScramCredentialsResponse = body(attack, &mut frame)?;
            told.codes.extend((response.error_code != 0).then_some(response.error_code));
            told.codes.extend(response.results.iter().map(|user| user.error_code));
        }
        55 => {
            let response: DescribeQuorumResponse = body(attack, &mut frame)?;
            told.codes.extend((response.error_code != 0).then_some(response.error_code));
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            told.codes.extend(partitions.map(|partition| partition.error_code));
        }
        57 => {
            let response: UpdateFeaturesResponse = body(attack, &mut frame)?;
            told.codes.push(response.error_code);
        }
        74 => {
            let response: ListConfigResourcesResponse = body(attack, &mut frame)?;
            told.codes.push(response.error_code);
        }
        key => return Err(format!("nobody reads answers of key {key}")),
    }
    Ok(told)
}

fn body<R: Decodable + HeaderVersion>(attack: &Attack, frame: &mut Bytes) -> Result<R, String> {
    let version = attack.answer_version;
    let header = ResponseHeader::decode(frame, R::header_version(version)).map_err(|error| error.to_string())?;
    if header.correlation_id != attack.correlation_id {
        return Err(format!("correlation id {} where {} was due", header.correlation_id, attack.correlation_id));
    }
    let body = R::decode(frame, version).map_err(|error| format!("an answer that does not decode: {error}"))?;
    match frame.len() {
        0 => Ok(body),
        left => Err(format!("{left} bytes are left of the answer")),
    }
}
