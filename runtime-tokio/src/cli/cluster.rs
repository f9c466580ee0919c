//! `tidelog cluster`.

use super::Outcome;
use super::output::{Format, Table, print, print_json};
use super::session::{Connection, run};
use clap::{Args, Subcommand};
use serde::Serialize;

#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Show the cluster's id, its brokers, and which of them is the controller.
    #[command(after_help = "\
Examples:
  tidelog cluster describe
  tidelog cluster describe -b broker-1:9092 --format json")]
    Describe(Describe),
}

#[derive(Debug, Args)]
pub struct Describe {
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct DescribedCluster {
    cluster_id: String,
    controller: Option<i32>,
    brokers: Vec<DescribedBroker>,
}

#[derive(Serialize)]
struct DescribedBroker {
    id: i32,
    host: String,
    port: u16,
    rack: Option<String>,
}

impl Cluster {
    pub fn run(self) -> Outcome {
        match self {
            Self::Describe(describe) => run(describe.run()),
        }
    }
}

impl Describe {
    async fn run(self) -> Outcome {
        let mut session = self.connection.admin()?;
        let cluster = session.cluster("describe").await?;
        let mut brokers: Vec<DescribedBroker> = cluster
            .brokers
            .iter()
            .map(|broker| DescribedBroker {
                id: broker.node.0,
                host: broker.address.host.to_string(),
                port: broker.address.port,
                rack: broker.rack.as_ref().map(ToString::to_string),
            })
            .collect();
        brokers.sort_by_key(|broker| broker.id);
        let controller = cluster.controller.map(|node| node.0);
        let described = DescribedCluster { cluster_id: cluster.cluster_id.to_string(), controller, brokers };
        if self.format == Format::Json {
            return print_json(&described);
        }
        let mut table = Table::new(&["BROKER", "HOST", "PORT", "RACK", ""]).numbers(&["BROKER", "PORT"]);
        for it in described.brokers {
            let role = if Some(it.id) == described.controller { "controller" } else { "" };
            let rack = it.rack.unwrap_or_default();
            table.row([it.id.to_string(), it.host, it.port.to_string(), rack, role.to_owned()]);
        }
        print(&format!("cluster {}\n{}", described.cluster_id, table.text()))
    }
}
