//! What a request's head is given from outside: a path, a content type, header lines. Pure.
//!
//! Images hold them as they are. A space in a path or a line end in a value would make another request than the one that
//! was asked for, and a header that the generator writes too would be there twice: what is measured then is a refusal.

/// Headers that the generator writes itself or whose meaning it relies on, and what says them instead.
const OWN: [(&str, &str); 10] = [
    ("host", "--target says it"),
    ("content-type", "--content-type says it"),
    ("content-encoding", "--encoding says it"),
    ("content-length", "it is that of the body"),
    ("transfer-encoding", "bodies have a length"),
    ("connection", "--requests-per-connection says it"),
    ("keep-alive", "--requests-per-connection says it"),
    ("upgrade", "answers are read as HTTP/1.1"),
    ("expect", "bodies follow their heads at once"),
    ("trailer", "bodies have a length"),
];

/// A path as a request line takes it (RFC 9112, 3.2.1): from a slash on, in visible ASCII.
///
/// # Errors
/// A sentence with what is wrong.
pub fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("a path begins with '/'".into());
    }
    match text.chars().find(|c| !c.is_ascii_graphic()) {
        Some(wrong) => Err(format!("{wrong:?} cannot stand in a path; write it as %XX")),
        None => Ok(text.to_owned()),
    }
}

/// The value of a header: no line end or other control byte but a tab (RFC 9110, 5.5).
///
/// # Errors
/// A sentence with what is wrong.
pub fn value(text: &str) -> Result<String, String> {
    match text.chars().find(|c| c.is_ascii_control() && *c != '\t') {
        Some(wrong) => Err(format!("{wrong:?} cannot stand in the value of a header")),
        None => Ok(text.to_owned()),
    }
}

/// A header line that the generator does not write itself: a token (RFC 9110, 5.6.2), a colon, a value.
///
/// # Errors
/// A sentence with what is wrong.
pub fn line(text: &str) -> Result<String, String> {
    let (name, after) = text.split_once(':').ok_or("a header is one line 'Name: value'")?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is no name of a header"));
    }
    value(after)?;
    match OWN.iter().find(|(own, _)| is_named(text, own)) {
        Some((_, instead)) => Err(format!("{name} is written by the generator itself: {instead}")),
        None => Ok(text.to_owned()),
    }
}

/// Whether a header line has a name, in whatever case.
#[must_use]
pub fn is_named(line: &str, name: &str) -> bool {
    line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_another_request_is_refused() {
        for wrong in ["", "v1/events", "*", "/a b", "/\u{e4}", "/a\r\nX: 1", "/a\0", "/a\u{7f}"] {
            assert!(path(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["text/plain\r\nX: 1", "a\nb", "a\0", "\u{7f}"] {
            assert!(value(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["no colon", ": x", "Na me: x", "Name : x", "N\u{e4}me: x", "X: a\r\nY: b", "X: a\nb", "X: \0"] {
            assert!(line(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_a_head_is_taken_as_it_is() {
        assert_eq!(path("/v1/events?atomic=true&x=%20").unwrap(), "/v1/events?atomic=true&x=%20");
        assert_eq!(value("application/json; charset=utf-8").unwrap(), "application/json; charset=utf-8");
        for right in ["X-More: 1", "X-Empty:", "!#$%&'*+-.^_`|~9a: \u{e4}\tb", "X-API-Key: k", "X-Ack: memory"] {
            assert_eq!(line(right).unwrap(), right);
        }
    }

    #[test]
    fn headers_of_the_generators_own_are_refused_in_whatever_case() {
        for (name, _) in OWN {
            for name in [name.to_owned(), name.to_ascii_uppercase()] {
                assert!(line(&format!("{name}: 1")).unwrap_err().contains("itself"), "{name}");
            }
        }
    }
}
