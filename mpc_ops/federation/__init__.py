"""What was agreed between the parties: terms, membership, directory, contracts, rule packs and certificates.

The *terms* are in every plan's digest; the *membership* (owners and their keys) is in every manifest's; the *directory*
(endpoints, TLS, SSH and sealing keys) is signed entry by entry by each party and may change daily.
"""
