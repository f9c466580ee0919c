//! `tidelog random-uuid`: an id for a cluster or a directory.

use super::output::print;
use super::{Failure, Outcome};
use crate::entropy;
use clap::Args;
use std::io;
use tidelog_core::ids::Uuid;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidelog random-uuid
  tidelog format -t \"$(tidelog random-uuid)\" -c server.properties --standalone")]
pub struct RandomUuid {}

impl RandomUuid {
    pub fn run(self) -> Outcome {
        print(&format!("{}\n", random_uuid().map_err(Failure::of)?))
    }
}

/// An id that nobody else has.
pub fn random_uuid() -> io::Result<Uuid> {
    // One draw in 64 begins with `-` and is drawn again. So many in a row never do.
    let bytes: [u8; 1024] = entropy::seed()?;
    let mut draws = bytes.chunks_exact(16).map(|draw| draw.try_into().expect("it has 16 bytes"));
    Ok(Uuid::random(|| draws.next().expect("64 draws in a row are not all refused")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ids_differ_and_none_reads_as_an_option() {
        let ids: Vec<String> = (0..500).map(|_| random_uuid().unwrap().to_string()).collect();
        assert_ne!(ids[0], ids[1]);
        assert!(ids.iter().all(|id| id.len() == 22 && !id.starts_with('-') && Uuid::parse(id).is_some()));
    }
}
