//! Text files that say where they end, so that one that was cut off is noticed, and that people may still edit.
//!
//! Such a file begins with a line that starts with its mark, and has the line [`END`] behind all that counts. Files of
//! version 0.1 have neither; they are read, with a warning.

/// The line behind all that counts.
pub(in crate::node) const END: &str = "# end";

/// The first line of a file with that mark.
pub(in crate::node) fn first_line(mark: &str) -> String {
    format!(
        "{mark} 1: the line \"{END}\" stands behind all that counts, so that a file that was cut off is noticed"
    )
}

/// Checks that a text is whole. The answer is what to warn people of.
///
/// # Errors
/// A sentence: the text says where it ends, and was cut off before.
pub(in crate::node) fn check(text: &str, mark: &str) -> Result<Option<String>, String> {
    if !text.starts_with(mark) {
        return Ok(Some(format!(
            "the file does not say where it ends, so that it would not be noticed if it was cut off: make \"{}\" its \
             first line and \"{END}\" its last",
            first_line(mark)
        )));
    }
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    if !lines.any(|(_, line)| line == END) {
        return Err(format!(
            "the file was cut off: by its first line it ends with the line \"{END}\", which is not there; put back what \
             is missing, or add that line if nothing is"
        ));
    }
    let behind = lines.find(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    Ok(behind.map(|(at, _)| {
        format!("line {at} stands behind the line \"{END}\": it would not be noticed if it was cut off; move it before")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_whole_with_its_last_line_and_told_to_be_cut_off_without_it() {
        let text = |rest: &str| format!("{}\n{rest}", first_line("# x"));
        assert_eq!(check(&text("a = 1\n# end\n"), "# x"), Ok(None));
        assert_eq!(check(&text("a = 1\r\n# end"), "# x"), Ok(None), "as other systems write it");
        assert_eq!(check(&text("# end\n\n# a remark\n"), "# x"), Ok(None));
        assert!(check(&text("a = 1\n# en"), "# x").is_err_and(|why| why.contains("cut off")));
        assert!(check(&text("a = 1\n# ending\n"), "# x").is_err());
        let behind = check(&text("# end\nb = 2\n"), "# x").expect("it is read").expect("with a warning");
        assert!(behind.contains("line 3"), "{behind}");
        assert!(check("a = 1\n", "# x").expect("version 0.1").is_some_and(|why| why.contains("first line")));
    }
}
