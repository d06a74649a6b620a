//! The TOML file of a node: schema, defaults and validation.
