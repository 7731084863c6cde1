//! Texts that must not grow without limit.

/// Cuts `text` to at most `bytes_max` bytes, at the end of a character.
pub(crate) fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, bytes_max, expect) in [("abc", 5, "abc"), ("abc", 2, "ab"), ("aä", 2, "a"), ("ä", 1, "")]
        {
            let mut text = text.to_owned();
            cut(&mut text, bytes_max);
            assert_eq!(text, expect);
        }
    }
}
