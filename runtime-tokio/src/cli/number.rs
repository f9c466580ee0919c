//! Numbers of the command line: what is no number, or too small, is answered with what is allowed.

use std::fmt::Display;
use std::str::FromStr;

/// A parser for whole numbers from `min` on.
pub fn at_least<T>(min: T) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Copy + Send + Sync + 'static,
{
    move |text| {
        text.parse().ok().filter(|number| *number >= min).ok_or_else(|| {
            let is_whole = text.parse::<i128>().is_ok_and(|number| number > 0);
            let why = if is_whole { "it is too large; " } else { "" };
            format!("{why}allowed is a whole number of at least {min}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_allowed_is_answered_with_what_is() {
        let parse = at_least(1);
        assert_eq!((parse("1"), parse("2147483647")), (Ok(1), Ok(i32::MAX)));
        for text in ["0", "-1", "1.5", "", "many"] {
            assert_eq!(parse(text).unwrap_err(), "allowed is a whole number of at least 1", "{text}");
        }
        assert_eq!(parse("2147483648").unwrap_err(), "it is too large; allowed is a whole number of at least 1");
    }
}
