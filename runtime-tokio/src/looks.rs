//! How text for people looks.
//!
//! | style | is for |
//! |---|---|
//! | [`HEADING`] | the heads of tables and of help, the names of topics, the names of files in a dump |
//! | [`ERROR`] | what went wrong, and faults in files |
//! | [`WARNING`] | what a person should know, although the command goes on |
//!
//! Styles go only to a terminal, and not where `NO_COLOR` is set: whoever writes them asks [`has_colours`], or writes
//! to a stream of `anstream`, which takes them out.

use clap::builder::styling::{AnsiColor, Color, Style, Styles};
use std::fmt::Display;

pub const HEADING: Style = Style::new().bold();
pub const ERROR: Style = Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::Red)));
pub const WARNING: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Yellow)));

/// The same styles for what clap prints.
pub const HELP: Styles = Styles::styled().header(HEADING).usage(HEADING).error(ERROR).invalid(WARNING).valid(HEADING);

/// Whether a stream shows colours: it is a terminal, and `NO_COLOR` is not set.
pub fn has_colours(stream: &impl anstream::stream::RawStream) -> bool {
    anstream::AutoStream::choice(stream) != anstream::ColorChoice::Never
}

pub fn bold(text: &str) -> String {
    format!("{HEADING}{text}{HEADING:#}")
}

/// A number for people: `1,234,567` or `-1,234.5`. JSON has plain numbers.
pub fn count(number: impl Display) -> String {
    let number = number.to_string();
    let (whole, fraction) = number.split_at(number.find('.').unwrap_or(number.len()));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut text = sign.to_owned();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators_between_thousands() {
        let texts = [0, 999, 1_000, 148_361, 1_000_000, -1_234].map(count);
        assert_eq!(texts, ["0", "999", "1,000", "148,361", "1,000,000", "-1,234"]);
        assert_eq!([0.125, 2207.743, -1_234_567.5].map(count), ["0.125", "2,207.743", "-1,234,567.5"]);
    }
}
