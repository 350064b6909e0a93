"""What other products' names mean, over the SDK: an adapter a product, used by every door that speaks its words."""
