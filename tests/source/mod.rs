//! Reads Rust sources as far as `tidy` needs: which text is code, which is comment, where functions begin and end.

use std::path::Path;

/// One source file.
pub(crate) struct Source {
    /// Path from the root of the tree, with `/`.
    pub(crate) path: String,
    text: String,
    /// The text with comments and the contents of literals replaced by spaces; line ends stay.
    code: String,
}

/// One function.
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// Line of its `fn`, 1-based.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace.
    pub(crate) lines: usize,
}

impl Source {
    /// Reads a file below `root`.
    pub(crate) fn read(root: &Path, path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let path = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        Self { path, code: blank_out(&text), text }
    }

    /// The file as it is.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Lines of code with their numbers, 1-based; comments and literals are blank.
    pub(crate) fn code_lines(&self) -> Vec<(usize, String)> {
        self.code.lines().enumerate().map(|(at, line)| (at + 1, line.to_owned())).collect()
    }

    /// The `lines` lines before a line and the line itself, as they are.
    pub(crate) fn lines_above(&self, line: usize, lines: usize) -> Vec<&str> {
        self.text.lines().take(line).skip(line.saturating_sub(lines + 1)).collect()
    }

    /// First path segments after `prefix` (`crate::` or `tidegate::`) with their lines, braces of a `use` opened up.
    pub(crate) fn crate_paths(&self, prefix: &str) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        for (at, _) in self.code.match_indices(prefix) {
            if self.code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
                continue;
            }
            let line = self.code[..at].matches('\n').count() + 1;
            let rest = &self.code[at + prefix.len()..];
            if let Some(list) = rest.strip_prefix('{') {
                paths.extend(first_segments(list).into_iter().map(|segment| (line, segment)));
            } else {
                paths.push((line, identifier(rest)));
            }
        }
        paths
    }

    /// Every function with a body.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            if self.code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
                continue;
            }
            let name = identifier(&self.code[at + 3..]);
            let Some(end) = body_end(&self.code[at..]) else { continue };
            let line = self.code[..at].matches('\n').count() + 1;
            let lines = self.code[at..at + end].matches('\n').count() + 1;
            functions.push(Function { name, line, lines });
        }
        functions
    }
}

/// Every `.rs` file below a directory, which need not be there.
pub(crate) fn sources_below(root: &Path, directory: &Path) -> Vec<Source> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut sources = Vec::new();
    for entry in entries.map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            sources.extend(sources_below(root, &path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(Source::read(root, &path));
        }
    }
    sources
}

/// Whether `text` holds `word` with no letter on either side.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    text.match_indices(word).any(|(at, _)| {
        let bytes = text.as_bytes();
        !is_part(at.checked_sub(1).and_then(|before| bytes.get(before))) && !is_part(bytes.get(at + word.len()))
    })
}

/// Whether a line is a plain comment that ends as only code does.
pub(crate) fn looks_like_code_in_a_comment(line: &str) -> bool {
    let Some(comment) = line.trim_start().strip_prefix("//") else { return false };
    if comment.starts_with(['/', '!']) {
        return false;
    }
    let comment = comment.trim();
    let begins =
        ["let ", "use ", "fn ", "pub ", "if ", "for ", "while ", "match ", "return ", "assert", "#[", "self.", "}"];
    let ends = [";", "{", "}", "},", ");", ")?;"];
    begins.iter().any(|begin| comment.starts_with(begin)) && ends.iter().any(|end| comment.ends_with(end))
}

/// Targets of `[text](target)` outside of code.
pub(crate) fn markdown_links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code || line.starts_with("    ") {
            continue;
        }
        // Every second piece between backticks is code.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (at, _) in prose.match_indices("](") {
            let rest = &prose[at + 2..];
            if let Some(end) = rest.find(')') {
                links.push(rest[..end].split(' ').next().unwrap_or_default().to_owned());
            }
        }
    }
    links
}

/// The anchor that a Markdown heading gets: lower case, spaces to hyphens, punctuation dropped.
pub(crate) fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

/// First segments of the paths in a `use` list, from after its opening brace.
fn first_segments(list: &str) -> Vec<String> {
    let mut segments = Vec::new();
    let mut depth = 0;
    let mut expected = true;
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expected = true,
            _ if expected && (letter.is_alphabetic() || letter == '_') => {
                segments.push(identifier(&list[at..]));
                expected = false;
            }
            _ => {}
        }
    }
    segments
}

/// Offset after the closing brace of the function that begins `code`; `None` if it has no body.
fn body_end(code: &str) -> Option<usize> {
    let mut round = 0;
    let mut curly = 0;
    for (at, letter) in code.char_indices() {
        match letter {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            ';' if round == 0 && curly == 0 => return None,
            '{' => curly += 1,
            '}' => {
                curly -= 1;
                if curly == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Replaces comments and the contents of string and character literals by spaces.
fn blank_out(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if !follows_identifier(bytes, at) => raw_string_end(bytes, at),
            b'\'' => char_end(bytes, at),
            _ => at,
        };
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(code).expect("whole literals were replaced")
}

fn follows_identifier(bytes: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).map(|before| bytes[before]);
    // `br"…"` is a literal too.
    before.is_some_and(|byte| byte.is_ascii_alphanumeric() && byte != b'b' || byte == b'_')
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[u8], start: usize) -> usize {
    let hashes = bytes[start + 1..].iter().take_while(|byte| **byte == b'#').count();
    if bytes.get(start + 1 + hashes) != Some(&b'"') {
        return start;
    }
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let body = start + 2 + hashes;
    bytes[body..]
        .windows(close.len())
        .position(|window| window == close)
        .map_or(bytes.len(), |length| body + length + close.len())
}

/// End of a character literal, or `start` where the quote begins a lifetime.
fn char_end(bytes: &[u8], start: usize) -> usize {
    match bytes.get(start + 1) {
        Some(b'\\') => {
            // The escaped character may itself be a quote.
            let close = bytes[start + 3..].iter().position(|byte| *byte == b'\'');
            close.map_or(start, |length| start + 3 + length + 1)
        }
        Some(_) => {
            let letter_bytes = 1 + bytes[start + 2..].iter().take_while(|byte| **byte & 0xC0 == 0x80).count();
            if bytes.get(start + 1 + letter_bytes) == Some(&b'\'') { start + letter_bytes + 2 } else { start }
        }
        None => start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { path: "src/x/y.rs".into(), text: text.into(), code: blank_out(text) }
    }

    #[test]
    fn only_code_is_taken_for_code() {
        let text = concat!(
            "// crate::a\nlet a = \"crate::b \\\" crate::c\"; /* crate::d /* */ crate::e */ let q = '\"'; crate::f::g();\n",
            "let r = r#\"crate::h \" \"#; let l: &'static str = 'x'; b'\\''; crate::i;\n",
        );
        let paths = source(text).crate_paths("crate::");
        assert_eq!(paths, [(2, "f".to_owned()), (3, "i".to_owned())]);
    }

    #[test]
    fn lists_of_imports_are_opened_up() {
        let paths = source("use crate::{a::{b, c}, d, e::f};\nuse crate::g::{h};").crate_paths("crate::");
        let names: Vec<_> = paths.into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["a", "d", "e", "g"]);
    }

    #[test]
    fn functions_end_where_their_body_ends() {
        let functions =
            source("trait T {\n    fn a(&self);\n}\nfn b(x: [u8; 2]) -> u8 {\n    if x { \"}\" }\n}\nfn c() {}\n")
                .functions();
        let seen: Vec<_> =
            functions.iter().map(|function| (function.name.as_str(), function.line, function.lines)).collect();
        assert_eq!(seen, [("b", 4, 3), ("c", 7, 1)]);
    }

    #[test]
    fn comments_that_are_code_are_told_from_prose() {
        for code in ["// let x = 1;", "    // self.flush();", "// }", "// if x {"] {
            assert!(looks_like_code_in_a_comment(code), "{code}");
        }
        for prose in ["// If x is set, y follows;", "/// let x = 1;", "let x = 1; // set", "// for the reason above."] {
            assert!(!looks_like_code_in_a_comment(prose), "{prose}");
        }
    }

    #[test]
    fn links_and_anchors_are_read() {
        assert_eq!(markdown_links("[a](b.md) `[c](d)` [e](f#g \"t\")\n```\n[h](i)\n```\n"), ["b.md", "f#g"]);
        assert_eq!(anchor_of("## What a 2xx promises, in words"), "what-a-2xx-promises-in-words");
    }
}
