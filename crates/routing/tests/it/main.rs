//! The decision from outside: the documents' tables, and a plain search as the
//! oracle of the index.

mod oracle;
mod rules;
