//! Rust source split into code and comments, so that words in comments and literals are not taken for code.

/// A source, twice: each text as long as the source, with blanks in place of what is not its part.
pub struct Scanned {
    /// Code, without comments and without the contents of literals.
    pub code: String,
    /// Comments only.
    pub comments: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Code,
    Comment,
    Literal,
}

/// Splits `source`.
pub fn scan(source: &str) -> Scanned {
    let bytes = source.as_bytes();
    let mut parts = vec![Part::Code; bytes.len()];
    let mut at = 0;
    while at < bytes.len() {
        let (part, end) = token(bytes, at);
        // The delimiters of literals stay code, so that what follows them keeps its meaning.
        parts[at..end].fill(part);
        at = end;
    }
    let only = |wanted: Part| -> String {
        let pick = |(byte, part): (&u8, &Part)| match byte {
            b'\n' => '\n',
            _ if *part == wanted && byte.is_ascii() => char::from(*byte),
            _ => ' ',
        };
        bytes.iter().zip(&parts).map(pick).collect()
    };
    Scanned { code: only(Part::Code), comments: only(Part::Comment) }
}

/// The part that begins at `at`, and where it ends.
fn token(bytes: &[u8], at: usize) -> (Part, usize) {
    let rest = &bytes[at..];
    let after_word = at > 0 && is_word(bytes[at - 1]);
    if rest.starts_with(b"//") {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        return (Part::Comment, at + end);
    }
    if rest.starts_with(b"/*") {
        return (Part::Comment, at + block_comment(rest));
    }
    if rest[0] == b'"' {
        return (Part::Literal, at + quoted(rest, b'"'));
    }
    if !after_word && let Some(len) = raw_string(rest) {
        return (Part::Literal, at + len);
    }
    if rest[0] == b'\'' && is_char(rest) {
        return (Part::Literal, at + quoted(rest, b'\''));
    }
    (Part::Code, at + 1)
}

pub fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

fn block_comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if bytes[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The length of a raw string (`r"`, `r#"`, `br"`, `cr#"`), if one begins here.
fn raw_string(bytes: &[u8]) -> Option<usize> {
    let prefix = bytes.iter().position(|byte| *byte == b'r').filter(|at| *at <= 1)?;
    if prefix == 1 && !matches!(bytes[0], b'b' | b'c') {
        return None;
    }
    let hashes = bytes[prefix + 1..].iter().take_while(|byte| **byte == b'#').count();
    let start = prefix + 1 + hashes;
    if bytes.get(start) != Some(&b'"') {
        return None;
    }
    let end: Vec<u8> = [b'"'].into_iter().chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &bytes[start + 1..];
    let at = body.windows(end.len()).position(|window| window == end);
    Some(at.map_or(bytes.len(), |at| start + 1 + at + end.len()))
}

/// Tells a character from a lifetime.
fn is_char(bytes: &[u8]) -> bool {
    match bytes.get(1) {
        Some(b'\\') => true,
        Some(first) if first.is_ascii() => bytes.get(2) == Some(&b'\''),
        _ => true,
    }
}

/// Where `word` stands alone in `text`: byte offsets.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = text.as_bytes();
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at > 0 && is_word(bytes[at - 1]);
        let after = bytes.get(at + word.len()).is_some_and(|byte| is_word(*byte));
        !before && !after
    })
}

/// The number of the line at a byte offset, from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()
}

/// Whether a comment on this line or the one above allows `what`.
pub fn is_allowed(comments: &str, line: usize, what: &str) -> bool {
    let marker = format!("law: allows {what}, because ");
    let mut lines = comments.lines().skip(line.saturating_sub(2)).take(if line > 1 { 2 } else { 1 });
    lines.any(|comment| comment.contains(&marker))
}

/// The code without the in-file tests: modules behind `#[cfg(test)]` become blank.
pub fn without_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let at = from + found;
        let Some(open) = code[at..].find(['{', ';']).map(|open| at + open) else { break };
        let is_module = code[at..open].split_whitespace().any(|word| word == "mod");
        let end = if is_module && bytes[open] == b'{' { block_end(&bytes, open) } else { open };
        if is_module {
            bytes[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        from = end;
    }
    String::from_utf8(bytes).expect("ASCII only")
}

fn block_end(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let source = r####"let a = "unsafe \" x"; // unsafe
/* unsafe /* nested */ unsafe */ let b = 'u'; let c: &'static str = r#"un"safe"#; let d = b"\\"; e"####;
        let Scanned { code, comments } = scan(source);
        assert_eq!(words(&code, "unsafe").count(), 0, "{code}");
        assert_eq!(words(&comments, "unsafe").count(), 3, "{comments}");
        assert!(code.contains("'static") && code.trim_end().ends_with("; e"), "{code}");
        assert_eq!(line_of(source, source.len()), 2);
    }

    #[test]
    fn a_quote_and_an_escaped_quote_as_characters() {
        let code = scan(r#"f('"', '\'', '\\', 'a') + unsafe"#).code;
        assert_eq!(words(&code, "unsafe").count(), 1, "{code}");
    }

    #[test]
    fn words_stand_alone() {
        assert_eq!(words("unsafe_code unsafe xunsafe", "unsafe").collect::<Vec<_>>(), [12]);
    }

    #[test]
    fn test_modules_are_cut_and_nothing_else() {
        let code = "a\n#[cfg(test)]\nmod tests { x { } }\n#[cfg(test)]\nuse b;\nc";
        let cut = without_tests(code);
        assert!(!cut.contains('x') && cut.contains("use b") && cut.ends_with("\nc"), "{cut}");
    }

    #[test]
    fn an_exception_names_what_it_allows_and_why() {
        let comments = "\n// law: allows HashMap, because it is never iterated\n\n";
        assert!(is_allowed(comments, 3, "HashMap") && is_allowed(comments, 2, "HashMap"));
        assert!(!is_allowed(comments, 3, "HashSet") && !is_allowed(comments, 4, "HashMap"));
        assert!(!is_allowed("// law: allows HashMap\n", 1, "HashMap"));
    }
}
