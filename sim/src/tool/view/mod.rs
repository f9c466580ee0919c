//! `view`: a run as one page with everything in it, to look at in a browser.

mod page;

use super::Done;
use super::run::run_one;
use super::select::Selected;
use clap::Args;
use page::{Page, Recorder};
use tidelog_sim::trace::Trace;

/// The page without its data: it needs nothing else, neither a network nor a server.
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
        let (recorder, page) = Recorder::new();
        let outcome = run_one(&runnable, Trace::to(Box::new(recorder)).until(self.until_event));
        let mut page = page.take();
        page.title = runnable.arguments.clone();
        page.line = runnable.reproduce_anywhere();
        page.violation = outcome.violation.as_ref().map(ToString::to_string);
        let text = render(&page);
        std::fs::write(&self.output, &text).map_err(|error| format!("{}: {error}", self.output))?;
        println!("{}: {} events, {} KiB", self.output, outcome.events, text.len() / 1_024);
        if let Some(violation) = &outcome.violation {
            println!("it ends with {violation}");
        }
        Ok(true)
    }
}

fn render(page: &Page) -> String {
    let data = serde_json::to_string(page).expect("a page is data");
    // Nothing that a run says may end the script that holds it.
    let data = data.replace('<', "\\u003c");
    let title = page.title.replace('&', "&amp;").replace('<', "&lt;");
    let parts =
        [("{{title}}", title.as_str()), ("{{style}}", STYLE), ("{{script}}", SCRIPT), ("{{data}}", data.as_str())];
    // The data comes last: it may say anything.
    parts.into_iter().fold(HTML.to_string(), |page, (name, part)| page.replacen(name, part, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_core::plant::Plants;
    use tidelog_sim::scenario::Scenario;
    use tidelog_sim::world;

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
