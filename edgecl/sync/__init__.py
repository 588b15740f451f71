"""F5: the device's side of sync: outbox, transport, trust, rebase (docs/adr/0010). Its parts load what they need themselves."""
