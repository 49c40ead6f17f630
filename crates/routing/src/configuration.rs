//! Transaction configurations: which transaction confirmations (112) a recipient
//! wants (`spec.md` §4).

use std::collections::BTreeMap;

use tidings_types::{PmId, ProductId, Scope};

/// The message types that filter codes 1 to 6 stand for (`spec.md` §4.2).
const MTIDS: [&str; 6] = ["0100", "0120", "0200", "0220", "0400", "0420"];

/// What one recipient wants of the transactions in a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The recipient: whose webhooks it is about.
    pub owner: Scope,
    /// The manager that it is limited to.
    pub manager: Option<PmId>,
    /// The product that it is limited to; with `manager`, both must match.
    pub product: Option<ProductId>,
    pub is_active: bool,
    pub message_types: MessageTypes,
}

/// A set of message types, as a list of filter codes says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageTypes(u8);

impl MessageTypes {
    /// The set of a list of codes 0 to 6, where 0 means all. `None` if another
    /// code is in it.
    pub fn from_codes(codes: impl IntoIterator<Item = u32>) -> Option<Self> {
        codes.into_iter().try_fold(0, |set, code| (code <= 6).then(|| set | (1 << code))).map(Self)
    }

    /// Whether events with this `mtid` are wanted. One outside the six never is;
    /// a missing one only by 0.
    pub fn wants(self, mtid: Option<&str>) -> bool {
        let is_all = self.0 & 1 != 0;
        match mtid {
            None => is_all,
            Some(mtid) => MTIDS
                .iter()
                .position(|known| *known == mtid)
                .is_some_and(|place| is_all || self.0 & (2 << place) != 0),
        }
    }
}

/// One recipient's configurations. The most specific that fits an event decides
/// alone (`spec.md` §4.4): a product's, then a manager's, then the global one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configurations(BTreeMap<(Option<PmId>, Option<ProductId>), Wish>);

#[derive(Clone, Copy, Debug)]
struct Wish {
    is_active: bool,
    message_types: MessageTypes,
}

impl Configurations {
    pub(crate) fn add(&mut self, configuration: &Configuration) {
        let scope = (configuration.manager, configuration.product.clone());
        let Configuration { is_active, message_types, .. } = *configuration;
        self.0.insert(scope, Wish { is_active, message_types });
    }

    /// Whether the recipient wants a transaction of this manager and (registered)
    /// product.
    pub(crate) fn want(
        &self,
        manager: PmId,
        product: Option<&ProductId>,
        mtid: Option<&str>,
    ) -> bool {
        let get = |manager, product: Option<&ProductId>| self.0.get(&(manager, product.cloned()));
        let of_product = product.and_then(|product| {
            get(Some(manager), Some(product)).or_else(|| get(None, Some(product)))
        });
        of_product
            .or_else(|| get(Some(manager), None))
            .or_else(|| get(None, None))
            .is_some_and(|wish| wish.is_active && wish.message_types.wants(mtid))
    }
}
