//! What the operator does: the commands of `litefs-counter` that serve no visitor, a file each. The binary only calls
//! them. Nothing here knows the application; it tells where its database and its LiteFS are.
