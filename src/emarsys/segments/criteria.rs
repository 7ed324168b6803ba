//! Who is in a segment, as a tree of conditions.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::super::words::words;
use crate::{Error, Result};

/// The contacts that a segment is made of (Emarsys API: Create a segment). Its `Debug` shows fields and operators, and
/// not the values that they are compared with.
///
/// ```
/// use reverse_etl::emarsys::{Criteria, Operator};
///
/// let women_with_email = Criteria::compare("gender", Operator::Equals, "female").and(Criteria::not_empty("email"));
/// assert_eq!(
///     serde_json::to_value(&women_with_email)?,
///     serde_json::json!({"type": "and", "children": [
///         {"type": "criteria", "field": "gender", "operator": "equals", "value": "female"},
///         {"type": "criteria", "field": "email", "operator": "not_empty"},
///     ]})
/// );
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Criteria {
    /// All of these hold.
    And(Vec<Criteria>),
    /// One of these holds.
    Or(Vec<Criteria>),
    /// What the value of one field has to be.
    Field {
        /// The [`string_id`](crate::emarsys::Field::string_id) of the field, such as `gender`.
        field: String,
        /// How it is compared.
        operator: Operator,
        /// What it is compared with; some operators take nothing.
        value: Option<Value>,
    },
    /// Anything else, as JSON. What is read and is of no other form is kept like this, so that criteria that are read
    /// and written back are the same.
    Json(Value),
}

words! {
    /// How a field is compared in [`Criteria`]. These are the operators that are documented by an example; Emarsys has
    /// others, and refuses those that it does not know with 1008.
    Operator {
        /// It is the value.
        Equals = "equals",
        /// It has the value in it.
        Contains = "contains",
        /// It has any value.
        NotEmpty = "not_empty",
        /// It is the value or more.
        GreaterOrEqual = "greater_or_equal",
    }
}

impl Criteria {
    /// The contacts whose field, by its `string_id`, compares like this with `value`.
    pub fn compare(field: impl Into<String>, operator: Operator, value: impl Into<Value>) -> Self {
        Self::Field { field: field.into(), operator, value: Some(value.into()) }
    }

    /// The contacts whose field, by its `string_id`, has a value.
    pub fn not_empty(field: impl Into<String>) -> Self {
        Self::Field { field: field.into(), operator: Operator::NotEmpty, value: None }
    }

    /// The contacts for which both hold.
    #[must_use]
    pub fn and(self, other: impl Into<Self>) -> Self {
        match self {
            Self::And(mut children) => {
                children.push(other.into());
                Self::And(children)
            }
            first => Self::And(vec![first, other.into()]),
        }
    }

    /// The contacts for which at least one of both holds.
    #[must_use]
    pub fn or(self, other: impl Into<Self>) -> Self {
        match self {
            Self::Or(mut children) => {
                children.push(other.into());
                Self::Or(children)
            }
            first => Self::Or(vec![first, other.into()]),
        }
    }

    /// Refuses what Emarsys is known to refuse, and could be taken for a segment of nobody or of everybody.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::And(children) | Self::Or(children) if children.is_empty() => {
                Err(Error::config("a segment's criteria have an `and` or an `or` of nothing"))
            }
            Self::And(children) | Self::Or(children) => children.iter().try_for_each(Self::check),
            Self::Field { field, .. } if field.trim().is_empty() => {
                Err(Error::config("a segment's criteria compare a field without a name"))
            }
            Self::Field { .. } | Self::Json(_) => Ok(()),
        }
    }

    /// The node, if it is of a known form and has nothing that this form has no place for.
    fn typed(node: &Value) -> Option<Self> {
        let node = node.as_object()?;
        let has_only = |names: &[&str]| node.keys().all(|name| names.contains(&name.as_str()));
        let kind = node.get("type")?.as_str()?;
        match kind {
            "and" | "or" if has_only(&["type", "children"]) => {
                let children = node.get("children")?.as_array()?.iter().cloned().map(Self::from).collect();
                Some(if kind == "and" { Self::And(children) } else { Self::Or(children) })
            }
            "criteria" if has_only(&["type", "field", "operator", "value"]) => Some(Self::Field {
                field: node.get("field")?.as_str()?.to_owned(),
                operator: node.get("operator")?.as_str()?.to_owned().into(),
                value: node.get("value").cloned(),
            }),
            _ => None,
        }
    }
}

impl From<Value> for Criteria {
    fn from(node: Value) -> Self {
        Self::typed(&node).unwrap_or(Self::Json(node))
    }
}

impl Serialize for Criteria {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, children) = match self {
            Self::And(children) => ("and", children),
            Self::Or(children) => ("or", children),
            Self::Json(value) => return value.serialize(serializer),
            Self::Field { field, operator, value } => {
                let mut node = serializer.serialize_map(None)?;
                node.serialize_entry("type", "criteria")?;
                node.serialize_entry("field", field)?;
                node.serialize_entry("operator", operator)?;
                if let Some(value) = value {
                    node.serialize_entry("value", value)?;
                }
                return node.end();
            }
        };
        let mut node = serializer.serialize_map(Some(2))?;
        node.serialize_entry("type", kind)?;
        node.serialize_entry("children", children)?;
        node.end()
    }
}

impl fmt::Debug for Criteria {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(children) => f.debug_tuple("And").field(children).finish(),
            Self::Or(children) => f.debug_tuple("Or").field(children).finish(),
            Self::Field { field, operator, .. } => f
                .debug_struct("Field")
                .field("field", field)
                .field("operator", operator)
                .finish_non_exhaustive(),
            Self::Json(_) => f.write_str("Json(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tree_is_written_as_it_is_read() {
        let tree = json!({"type": "or", "children": [
            {"type": "and", "children": [
                {"type": "criteria", "field": "gender", "operator": "equals", "value": "female"},
                {"type": "criteria", "field": "zip", "operator": "begins_with", "value": null}]},
            {"type": "criteria", "field": "email", "operator": "not_empty"},
            {"type": "criteria", "field": "city", "operator": "equals", "value": "Wien", "negated": true},
            {"type": "voodoo", "strength": 9}]});
        let criteria = Criteria::from(tree.clone());
        let Criteria::Or(children) = &criteria else { panic!("{criteria:?}") };
        assert!(matches!(&children[0], Criteria::And(children) if children.len() == 2));
        assert!(matches!(&children[1], Criteria::Field { operator: Operator::NotEmpty, value: None, .. }));
        assert!(matches!(&children[2], Criteria::Json(_)), "a member it has no place for");
        assert!(matches!(&children[3], Criteria::Json(_)));
        assert_eq!(serde_json::to_value(&criteria).unwrap(), tree);
    }

    #[test]
    fn conditions_of_one_kind_stand_side_by_side() {
        let node = |field| Criteria::not_empty(field);
        assert_eq!(
            node("a").and(node("b")).and(node("c")),
            Criteria::And(vec![node("a"), node("b"), node("c")])
        );
        assert_eq!(
            node("a").or(node("b")).and(json!({"type": "x"})),
            Criteria::And(vec![
                Criteria::Or(vec![node("a"), node("b")]),
                Criteria::Json(json!({"type": "x"}))
            ])
        );
    }

    #[test]
    fn values_are_not_shown() {
        let criteria = Criteria::compare("email", Operator::Equals, "ada@shop.test")
            .or(json!({"type": "x", "email": "ada@shop.test"}));
        assert_eq!(
            format!("{criteria:?}"),
            r#"Or([Field { field: "email", operator: Equals, .. }, Json(..)])"#
        );
    }
}
