//! `view`: writes a run as one page to look at in a browser.

mod page;

use crate::commands::{Done, can_write, write};
use crate::run::run_one;
use crate::select::{Runnable, Selected};
use clap::Args;
use page::{Page, Recorder};
use tidelog_core::plant::Plant;
use tidelog_sim::checkers::Violation;
use tidelog_sim::trace::Trace;

/// The page without its data. With its data it needs neither a network nor a server.
const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

#[derive(Args)]
pub struct View {
    #[command(flatten)]
    selected: Selected,
    /// Where to write the page.
    #[arg(short, long, value_name = "FILE", default_value = "view.html")]
    output: String,
    /// Stop before this event.
    #[arg(long, value_name = "N")]
    until_event: Option<u64>,
}

impl View {
    pub fn run(&self) -> Done {
        let runnable = self.selected.runnable()?;
        can_write(&self.output)?;
        let (recorder, page) = Recorder::new();
        let outcome = run_one(&runnable, Trace::to(Box::new(recorder)).until(self.until_event));
        let mut page = page.take();
        page.title = title(&runnable, outcome.violation.as_ref());
        page.note = runnable.note.clone();
        page.line = runnable.reproduce_anywhere();
        page.violation = outcome.violation.as_ref().map(ToString::to_string);
        let text = render(&page);
        write(&self.output, &text)?;
        println!("{}: {} events, {} KiB", self.output, outcome.events, text.len() / 1_024);
        if let Some(violation) = &outcome.violation {
            println!("it ends with {violation}");
        }
        Ok(true)
    }
}

/// The title of a page: what is wrong, and the seed.
fn title(runnable: &Runnable, violation: Option<&Violation>) -> String {
    let planted = Plant::ALL.iter().filter(|plant| runnable.plants.has(**plant)).map(|plant| format!("{plant:?}, "));
    let what = violation.map_or("nothing is wrong".into(), Violation::fingerprint);
    let what: String = what.chars().take(100).collect();
    format!("{}{what}, seed {}", planted.collect::<String>(), runnable.scenario.seed)
}

fn render(page: &Page) -> String {
    let data = serde_json::to_string(page).expect("a page is data");
    // Text of a run must not end the `<script>` element that holds the data.
    let data = data.replace('<', "\\u003c");
    let title = page.title.replace('&', "&amp;").replace('<', "&lt;");
    let parts =
        [("{{title}}", title.as_str()), ("{{style}}", STYLE), ("{{script}}", SCRIPT), ("{{data}}", data.as_str())];
    // The data comes last: it may contain the names of other parts.
    parts.into_iter().fold(HTML.to_string(), |page, (name, part)| page.replacen(name, part, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::Options;
    use tidelog_core::plant::Plants;
    use tidelog_sim::scenario::Scenario;
    use tidelog_sim::world;

    #[test]
    fn a_title_says_the_bug_and_the_seed() {
        let planted = Options { plants: vec![Plant::TornTailAccepted], overrides: Vec::new() }.of_seed(7).unwrap();
        let found = Violation { checker: "offsets", place: None, text: "it is gone".into() };
        assert_eq!(title(&planted, Some(&found)), "TornTailAccepted, offsets, seed 7");
        assert_eq!(title(&Options::default().of_seed(8).unwrap(), None), "nothing is wrong, seed 8");
    }

    #[test]
    fn every_kind_that_is_drawn_has_a_colour_for_light_and_for_dark() {
        let colours = STYLE.lines().filter_map(|line| line.trim().strip_prefix("--")?.split_once(": light-dark("));
        let colours: Vec<&str> = colours.map(|(name, _)| name).collect();
        let table = |name: &str| SCRIPT.split_once(name).unwrap().1.split_once('}').unwrap().0;
        let kinds = [table("const BAND = {"), table("const DISK = {")].join(",");
        let kinds = kinds.split(',').filter_map(|entry| entry.split_once(':')).map(|(kind, _)| kind.trim());
        let used =
            SCRIPT.split("tone.").skip(1).map(|rest| rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap());
        for name in kinds.chain(used) {
            assert!(colours.contains(&name), "{name:?} is none of {colours:?}");
        }
    }

    #[test]
    fn what_a_run_says_cannot_end_the_script_that_holds_it() {
        let page = Page { violation: Some("</script><b>{{script}}".into()), ..Page::default() };
        let text = render(&page);
        assert_eq!(text.matches("</script>").count(), 2, "the page's own two");
        assert_eq!(text.matches("{{").count(), 1, "what the run said, and no place that was left empty");
    }

    #[test]
    fn every_message_of_a_run_arrives_is_lost_or_is_under_way_at_its_end() {
        let (recorder, page) = Recorder::new();
        let scenario = Scenario::draw(1);
        let outcome = world::run(&scenario, Plants::default(), Trace::to(Box::new(recorder)));
        let page = page.take();
        assert_eq!(outcome.violation, None);
        let arrived = page.messages.iter().filter(|message| message.got.is_some()).count();
        let lost = page.messages.iter().filter(|message| message.lost.is_some() && message.got.is_none()).count();
        assert!(arrived > 100, "{arrived} of {}", page.messages.len());
        assert!(arrived + lost + 50 > page.messages.len(), "{arrived} and {lost} of {}", page.messages.len());
        for message in &page.messages {
            let until = message.got.or(message.lost).unwrap_or(message.sent);
            assert!(message.sent <= until, "{message:?}");
        }
        assert!(page.commands.iter().all(|command| command.done.is_some() || command.lost.is_some()));
        assert!(!page.partitions.is_empty() && !page.states.is_empty());
    }
}
