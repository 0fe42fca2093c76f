//! The tree of a condition: nodes in one vector, children before their parents, so that no depth of a tree costs stack to drop.

use super::Type;

/// A node's place in its tree.
pub(crate) type Id = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binary {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Bool(bool),
    String(String),
    /// A decimal with its nearest float.
    Number {
        text: String,
        value: f64,
    },
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Literal(Literal),
    /// A member, feature or list, with its dots.
    Name(String),
    /// A function; of a method the name has a dot in front, and the first argument is its receiver.
    Call {
        name: String,
        args: Vec<Id>,
    },
    List(Vec<Id>),
    /// A part of CEL that the profile leaves out.
    Unsupported(String),
    Not(Id),
    Negative(Id),
    Choice {
        test: Id,
        yes: Id,
        no: Id,
    },
    Binary {
        operator: Binary,
        left: Id,
        right: Id,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// The character that a fault of this node stands at: the operator, function or name.
    pub(crate) at: usize,
    /// The type, once it is known.
    pub(crate) found: Option<Type>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    pub(crate) root: Id,
    /// The first character that is neither white space nor comment.
    pub(crate) first: usize,
}

impl Tree {
    pub(super) fn add(&mut self, kind: Kind, at: usize) -> Id {
        self.nodes.push(Node {
            kind,
            at,
            found: None,
        });
        self.nodes.len() - 1
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    pub(super) fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id]
    }

    /// The decimal text of a literal number, with or without a minus in front of it.
    pub(super) fn literal_number(&self, id: Id) -> Option<(&str, f64)> {
        let inner = match self.node(id).kind {
            Kind::Negative(inner) => inner,
            _ => id,
        };
        match &self.node(inner).kind {
            Kind::Literal(Literal::Number { text, value }) => Some((text, *value)),
            _ => None,
        }
    }
}
