//! `tidelog format`: makes the log directories of a node those of a cluster, as `kafka-storage format` does.

mod directories;
#[cfg(test)]
mod tests;
mod voters;

use super::output::print;
use super::random_uuid::random_uuid;
use super::{Failure, Outcome, properties, start};
use crate::clock::Clock;
use crate::server::host_name;
use clap::Args;
use directories::Formatting;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tidelog_core::config::{BrokerConfig, Warning};
use tidelog_core::controller::InitialFeatures;
use tidelog_core::ids::Uuid;
use tidelog_core::quorum::{Endpoints, KRAFT_VERSIONS, ReplicaKey, Voter, VoterSet};
use voters::InitialControllers;

/// Format the log directories of a node for a cluster
///
/// A single node needs none of this: it formats empty directories itself when it starts. Where a cluster has several
/// nodes, each is formatted with the same cluster id. Every controller of a cluster says who its first voters are: one
/// controller alone (--standalone), several (--initial-controllers), or those that it will find (--no-initial-controllers,
/// for a controller that joins later). Where the file sets controller.quorum.voters, none of the three is given; a node
/// that is a broker alone needs none.
///
/// Options and files are those of Kafka's `kafka-storage format`. Nothing is written unless all directories can be
/// formatted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidelog format -t \"$(tidelog random-uuid)\" -c server.properties --standalone
  tidelog format -t Zm9ybWF0LWV4YW1wbGUtMQ -c server.properties \\
    -I 1@a:9093:JEXY6aqzQY-32P5TStzaFg,2@b:9093:MvDxzVmcRsaTz33bUuRU6A
  tidelog format -t Zm9ybWF0LWV4YW1wbGUtMQ -c broker.properties --ignore-formatted")]
pub struct Format {
    /// The id of the cluster, the same on all its nodes. `tidelog random-uuid` prints one for a new cluster.
    #[arg(long, short = 't', value_name = "ID")]
    cluster_id: String,
    /// The node's server.properties.
    #[arg(long, short = 'c', value_name = "FILE")]
    config: PathBuf,
    /// This controller is the only voter for now. Others can be added when it runs.
    #[arg(long, short = 's', group = "quorum")]
    standalone: bool,
    /// This controller or broker does not know the voters yet: it finds them with controller.quorum.bootstrap.servers.
    #[arg(long, short = 'N', group = "quorum")]
    no_initial_controllers: bool,
    /// The first voters, as a list of id@host:port:directory-id, the same on all of them. Each of them gets the directory
    /// id that it has here.
    #[arg(long, short = 'I', group = "quorum", value_name = "LIST", value_parser = InitialControllers::parse)]
    initial_controllers: Option<InitialControllers>,
    /// The release of Kafka whose features the cluster begins with, such as 4.1. Otherwise the newest that is known.
    #[arg(long, short = 'r', value_name = "VERSION")]
    release_version: Option<String>,
    /// The level of one feature with which the cluster begins. May be given many times.
    #[arg(long = "feature", short = 'f', value_name = "FEATURE=LEVEL", value_parser = feature)]
    features: Vec<(String, i16)>,
    /// Leave directories alone that are formatted already, and format the others.
    #[arg(long, short = 'g')]
    ignore_formatted: bool,
}

/// Why what was asked for is not possible with this configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum RefusedFormat {
    #[error("the cluster id is empty: `tidelog random-uuid` prints one")]
    NoClusterId,
    #[error(
        "cluster.id={configured} in the configuration is another cluster than -t {given}: remove it, or give its id"
    )]
    OtherClusterId { configured: String, given: String },
    #[error(
        "You cannot specify controller.quorum.voters and format the node with --initial-controllers or --standalone. If \
         you want to use dynamic quorum, please remove controller.quorum.voters and specify \
         controller.quorum.bootstrap.servers instead."
    )]
    StaticVoters,
    #[error(
        "You can only use --standalone on a controller. Add controller to process.roles, or leave --standalone out."
    )]
    NoController,
    #[error(
        "Because controller.quorum.voters is not set on this controller, you must specify one of the following: \
         --standalone, --initial-controllers, or --no-initial-controllers."
    )]
    NoVoters,
    #[error(
        "a controller that other nodes cannot reach is no voter: add a listener of controller.listener.names to listeners, \
         such as {0}://localhost:9093"
    )]
    NoControllerListener(String),
    #[error(
        "--initial-controllers names this node, {0}, which is a broker alone. Add controller to process.roles, or take \
         the node out of the list"
    )]
    BrokerIsNoVoter(i32),
    #[error(
        "this node is none of the first voters, and nothing says where it finds them: set \
         controller.quorum.bootstrap.servers to the controllers"
    )]
    NothingToFindVoters,
    #[error("{0}")]
    Features(String),
}

impl Format {
    pub fn run(self) -> Outcome {
        let properties = properties::read(Some(&self.config), &[]).map_err(Failure::usage)?;
        let (config, warnings) = properties::for_formatting(&properties).map_err(Failure::usage)?;
        for Warning { text, .. } in warnings.into_iter().chain(start::default_place(&config)) {
            tracing::warn!("{text}");
        }
        let directory = random_uuid().map_err(Failure::of)?;
        let formatting = self.formatting(config, directory).map_err(Failure::usage)?;
        let mut printed = Ok(());
        let tell = |line: String| {
            if printed.is_ok() {
                printed = print(&format!("{line}\n"));
            }
        };
        formatting.carry_out(Clock::start().now().wall, tell).map_err(Failure::of)?;
        printed
    }

    /// What is asked for. `directory` is the id of the metadata log's directory if this node is the only voter.
    fn formatting(self, mut config: BrokerConfig, directory: Uuid) -> Result<Formatting, RefusedFormat> {
        let cluster_id = self.cluster_id.trim();
        if cluster_id.is_empty() {
            return Err(RefusedFormat::NoClusterId);
        }
        if let Some(configured) = config.cluster_id.take().filter(|configured| configured != cluster_id) {
            return Err(RefusedFormat::OtherClusterId { configured, given: cluster_id.to_owned() });
        }
        let is_dynamic = config.quorum.voters.is_empty();
        let asked: BTreeMap<String, i16> = self.features.iter().cloned().collect();
        let features = InitialFeatures::new(self.release_version.as_deref(), &asked, is_dynamic)
            .map_err(RefusedFormat::Features)?;
        let (node_id, metadata_dir) = (config.node_id, config.metadata_log_dir);
        let dirs = config.log_dirs.iter().map(PathBuf::from).collect();
        let (cluster_id, ignore_formatted) = (cluster_id.into(), self.ignore_formatted);
        let voters = self.voters(config, directory)?;
        Ok(Formatting { cluster_id, node_id, dirs, metadata_dir, features, voters, ignore_formatted })
    }

    /// The first voters of a dynamic quorum, where they are known. The rules are those of Kafka's StorageTool.
    fn voters(self, config: BrokerConfig, directory: Uuid) -> Result<Option<VoterSet>, RefusedFormat> {
        let is_static = !config.quorum.voters.is_empty();
        let is_controller = config.roles.has_controller();
        let finds_voters = is_static || !config.quorum.bootstrap_servers.is_empty();
        if is_static && (self.standalone || self.initial_controllers.is_some()) {
            return Err(RefusedFormat::StaticVoters);
        }
        if self.standalone {
            return only_voter(config, directory).map(Some);
        }
        if is_controller && !is_static && !self.no_initial_controllers && self.initial_controllers.is_none() {
            return Err(RefusedFormat::NoVoters);
        }
        let listener = config.controller_listener_names.first().map_or("", |name| name);
        let voters = self.initial_controllers.map(|controllers| controllers.voters(listener));
        let is_voter = voters.as_ref().is_some_and(|voters| voters.get(config.node_id).is_some());
        if is_voter && !is_controller {
            return Err(RefusedFormat::BrokerIsNoVoter(config.node_id.0));
        }
        if !is_voter && !finds_voters {
            return Err(RefusedFormat::NothingToFindVoters);
        }
        Ok(voters)
    }
}

/// This node alone, reached as it says in its configuration.
fn only_voter(mut config: BrokerConfig, directory: Uuid) -> Result<VoterSet, RefusedFormat> {
    if !config.roles.has_controller() {
        return Err(RefusedFormat::NoController);
    }
    let ports: Vec<u16> = config.listeners.iter().map(|listener| listener.port).collect();
    config.set_addresses(&ports, &host_name());
    let endpoints: Endpoints =
        config.controller_listeners().map(|listener| (&*listener.name, &*listener.host, listener.port)).collect();
    if endpoints.is_empty() {
        let name = config.controller_listener_names.first().map_or("CONTROLLER", |name| name);
        return Err(RefusedFormat::NoControllerListener(name.to_owned()));
    }
    let key = ReplicaKey::new(config.node_id, directory);
    Ok([Voter { key, endpoints, kraft_versions: KRAFT_VERSIONS }].into_iter().collect())
}

fn feature(text: &str) -> Result<(String, i16), String> {
    let read = text.split_once('=').and_then(|(name, level)| Some((name.trim(), level.trim().parse().ok()?)));
    let (name, level) =
        read.filter(|(name, _)| !name.is_empty()).ok_or("allowed is FEATURE=LEVEL, such as kraft.version=1")?;
    Ok((name.to_owned(), level))
}
