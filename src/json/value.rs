//! Any JSON value, for bodies that are no events. Shard thread; pure.

use simd_json::Node;

use super::{JsonError, JsonErrorKind, Validator};

impl Validator {
    /// Accepts `value` if it is one JSON value of any kind in UTF-8, nested at most one level less than the limit.
    ///
    /// The value is checked as the one member of an object: what makes that object valid makes the value valid, unless it
    /// brings members of its own, which the count shows.
    ///
    /// # Errors
    /// [`JsonError`] with the first fault found.
    pub fn validate_value(&mut self, value: &[u8]) -> Result<(), JsonError> {
        const BEFORE: &[u8] = b"{\"\":";
        let mut wrapped = std::mem::take(&mut self.wrapped);
        wrapped.clear();
        wrapped.extend_from_slice(BEFORE);
        wrapped.extend_from_slice(value);
        wrapped.push(b'}');
        let result = self.validate(&wrapped).map_err(|error| JsonError {
            offset: error.offset.map(|offset| offset.saturating_sub(BEFORE.len() as u32)),
            ..error
        });
        let result = result.and_then(|object| match object.nodes().first() {
            Some(Node::Object { len: 1, .. }) => Ok(()),
            _ => Err(JsonError { kind: JsonErrorKind::TrailingData, offset: None }),
        });
        self.wrapped = wrapped;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_of_any_kind_and_nothing_else() {
        let mut validator = Validator::new(8);
        for good in ["1", "\"a\"", "null", "[1,{}]", " {\"a\":[]} ", "-0.5e3"] {
            assert_eq!(validator.validate_value(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in ["", " ", "1,\"a\":2", "1 2", "1}", "{\"a\":1", "nul", "\"a\":1", "1,", ",1"] {
            assert!(validator.validate_value(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(validator.validate_value(b"[[[[[[[]]]]]]]").is_ok(), "seven levels in the object make eight");
        assert_eq!(validator.validate_value(b"[[[[[[[[]]]]]]]]").unwrap_err().kind, JsonErrorKind::TooDeep);
    }
}
