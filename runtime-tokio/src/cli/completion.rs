//! `tidelog completion`: what a shell needs to complete our command lines.

use super::Outcome;
use super::output::print;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(tidelog completion bash)
  tidelog completion zsh > ~/.zfunc/_tidelog
  tidelog completion fish > ~/.config/fish/completions/tidelog.fish")]
pub struct Completion {
    /// Whose.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub fn run(self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Arguments::command(), "tidelog", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}
