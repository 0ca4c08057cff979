//! Which parts of a question a policy reads, so that the rest need not be built.

use cedar_policy::{ActionConstraint, Policy};
use serde_json::Value;

/// A set of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Needs(u16);

impl Needs {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const TIME: Self = Self(1);
    pub(crate) const MINUTE: Self = Self(1 << 1);
    pub(crate) const WEEKDAY: Self = Self(1 << 2);
    pub(crate) const SOURCE: Self = Self(1 << 3);
    pub(crate) const PROTOCOL: Self = Self(1 << 4);
    pub(crate) const FIRMWARE: Self = Self(1 << 5);
    pub(crate) const NAME: Self = Self(1 << 6);
    pub(crate) const FLEET: Self = Self(1 << 7);
    pub(crate) const STANDING: Self = Self(1 << 8);
    pub(crate) const TAGS: Self = Self(1 << 9);
    pub(crate) const TOPIC: Self = Self(1 << 10);
    /// The groups that the action is in.
    pub(crate) const ACTION: Self = Self(1 << 11);
    /// All of the context, and with it the time.
    const CONTEXT: Self = Self(0b11_1111);
    const CLOCK: Self = Self(0b111);

    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn any_of(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the answer may change with the clock.
    pub(crate) const fn is_timed(self) -> bool {
        self.any_of(Self::CLOCK)
    }

    /// What `policy` reads: by the names of attributes that stand anywhere in its conditions, whatever they are read from.
    pub(crate) fn of(policy: &Policy) -> Result<Self, String> {
        let json = policy.to_json().map_err(|error| error.to_string())?;
        let mut needs = match policy.action_constraint() {
            ActionConstraint::In(_) => Self::ACTION,
            ActionConstraint::Any | ActionConstraint::Eq(_) => Self::NONE,
        };
        if let Some(conditions) = json.get("conditions") {
            needs.read(conditions);
        }
        Ok(needs)
    }

    fn read(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.read(item)),
            Value::Object(fields) => fields.iter().for_each(|(operator, operand)| self.read_operator(operator, operand)),
            _ => {}
        }
    }

    fn read_operator(&mut self, operator: &str, operand: &Value) {
        match operator {
            "Var" => *self = self.with(Self::of_variable(operand)),
            "hasTag" | "getTag" => {
                *self = self.with(Self::TAGS);
                self.read(operand);
            }
            "." | "has" => {
                *self = self.with(Self::of_attribute(operand.get("attr")));
                // `context.time` reads the time alone; `context` by itself is all of it.
                if operand.pointer("/left/Var").is_none_or(|variable| variable == "action") {
                    self.read(operand);
                }
            }
            _ => self.read(operand),
        }
    }

    fn of_variable(variable: &Value) -> Self {
        match variable.as_str() {
            Some("context") => Self::CONTEXT,
            Some("action") => Self::ACTION,
            _ => Self::NONE,
        }
    }

    fn of_attribute(name: Option<&Value>) -> Self {
        match name.and_then(Value::as_str) {
            Some("time") => Self::TIME,
            Some("minute_of_day") => Self::MINUTE,
            Some("weekday") => Self::WEEKDAY,
            Some("source") => Self::SOURCE,
            Some("protocol") => Self::PROTOCOL,
            Some("firmware") => Self::FIRMWARE,
            Some("name") => Self::NAME,
            Some("fleet") => Self::FLEET,
            Some("standing") => Self::STANDING,
            Some("text" | "first" | "second" | "levels" | "wildcard") => Self::TOPIC,
            // Not a name of ours; it may be a field of a record that the policy writes itself.
            Some(_) => Self::NONE,
            // Not a form that is known here: then nothing is left out.
            None => Self(u16::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(condition: &str) -> Needs {
        let text = format!("permit (principal, action, resource) when {{ {condition} }};");
        Needs::of(&Policy::parse(None, text).expect(condition)).expect("a policy that was parsed")
    }

    #[test]
    fn what_is_read_is_named() {
        let table = [
            ("true", Needs::NONE),
            ("context.time > 5", Needs::TIME),
            ("context[\"weekday\"] == 1", Needs::WEEKDAY),
            ("context has minute_of_day", Needs::MINUTE),
            ("context has source && context.source.isLoopback()", Needs::SOURCE),
            ("context has protocol", Needs::PROTOCOL),
            ("context has firmware", Needs::FIRMWARE),
            ("context == {time: 5}", Needs::CONTEXT),
            ("[context].contains({time: 5})", Needs::CONTEXT),
            ("{a: context}.a.time == 5", Needs::CONTEXT),
            ("(if true then context else context).time == 5", Needs::CONTEXT),
            ("principal.name == resource.first", Needs::NAME.with(Needs::TOPIC)),
            ("principal.fleet like \"a*\"", Needs::FLEET),
            ("principal.standing == Standing::\"good\"", Needs::STANDING),
            ("principal.hasTag(\"group\")", Needs::TAGS),
            ("principal.getTag(\"group\") == \"time\"", Needs::TAGS),
            ("action in Action::\"Admin\"", Needs::ACTION),
            ("principal == Device::\"time\"", Needs::NONE),
        ];
        for (condition, expected) in table {
            assert_eq!(needs(condition), expected, "{condition}");
        }
        assert!(needs("context == {}").is_timed());
        assert!(!needs("context has source").is_timed());
    }
}
