"""What tests of several folders share: small models, made data, fixtures of reference numbers, fakes."""
