//! From an account to the elements that must exist for it.

mod element;

pub use element::{
    AaaAccess, AaaContent, CmAccess, CmContent, Content, ElementDesired, ElementKind, ElementKindError, MailboxContent,
    SecretRef,
};
