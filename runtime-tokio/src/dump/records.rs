//! The records of one batch: as they are, or as what brokers and controllers mean by them.

use super::Stop;
use super::batches::Found;
use super::line::Line;
use super::report::Report;
use serde_json::value::RawValue;
use tidelog_core::batch::{BatchLimits, ControlRecord, ControlType, Record, records};
use tidelog_core::wire::MetadataRecord;
use tidelog_core::wire::messages::{
    KRaftVersionRecord, LeaderChangeMessage, SnapshotFooterRecord, SnapshotHeaderRecord, VotersRecord,
};

/// Shows the records of a batch whose checksum is right, and returns the kinds of the control records among them.
pub fn show(found: &Found, is_metadata: bool, report: &mut Report) -> Result<Vec<ControlType>, Stop> {
    let mut controls = Vec::new();
    let base = found.header.base_offset.0;
    let decoded = match records(&found.bytes, &BatchLimits::default()) {
        Ok(decoded) => decoded,
        Err(error) => {
            report.line(&Line::fault_in(found.position, base, format!("the records cannot be read: {error}")))?;
            return Ok(controls);
        }
    };
    let mut last = None;
    for record in decoded {
        let (at, line) = match record {
            Err(error) => {
                let after = last.map_or(base, |last: i64| last + 1);
                (after, Err(format!("the records cannot be read on: {error}")))
            }
            Ok(record) => {
                last = Some(record.offset.0);
                let line = if found.header.is_control() {
                    control(&record, &mut controls)
                } else if is_metadata {
                    metadata(&record)
                } else {
                    Ok(Line::record(&record))
                };
                (record.offset.0, line)
            }
        };
        report.line(&line.unwrap_or_else(|text| Line::fault_in(found.position, at, text)))?;
    }
    Ok(controls)
}

fn metadata(record: &Record) -> Result<Line, String> {
    let value = record.value.clone().ok_or("a record of the metadata without a value")?;
    let (decoded, version) = MetadataRecord::decode(value).map_err(|error| error.to_string())?;
    Ok(Line::Metadata { offset: record.offset.0, timestamp: record.timestamp, payload: raw(decoded.to_json(version)) })
}

fn control(record: &Record, kinds: &mut Vec<ControlType>) -> Result<Line, String> {
    let control = ControlRecord::parse(record)?;
    kinds.push(control.kind);
    Ok(Line::Control {
        offset: record.offset.0,
        timestamp: record.timestamp,
        kind: format!("{:?}", control.kind),
        value: raw(control_value(&control)?),
    })
}

/// The value of a control record of KRaft begins with its version (KIP-595).
fn control_value(control: &ControlRecord) -> Result<String, String> {
    let version = control.value.first_chunk().map_or(0, |bytes| i16::from_be_bytes(*bytes));
    let value = control.value.clone();
    let decoded = match control.kind {
        ControlType::Abort | ControlType::Commit => {
            return Ok(format!(r#"{{"coordinatorEpoch":{}}}"#, control.coordinator_epoch()?));
        }
        ControlType::LeaderChange => LeaderChangeMessage::from_bytes(version, value).map(|m| m.to_json(version)),
        ControlType::SnapshotHeader => SnapshotHeaderRecord::from_bytes(version, value).map(|m| m.to_json(version)),
        ControlType::SnapshotFooter => SnapshotFooterRecord::from_bytes(version, value).map(|m| m.to_json(version)),
        ControlType::KRaftVersion => KRaftVersionRecord::from_bytes(version, value).map(|m| m.to_json(version)),
        ControlType::KRaftVoters => VotersRecord::from_bytes(version, value).map(|m| m.to_json(version)),
        ControlType::Unknown(_) => return Ok(format!(r#"{{"bytes":{}}}"#, value.len())),
    };
    decoded.map_err(|error| error.to_string())
}

fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).expect("the core writes JSON")
}
