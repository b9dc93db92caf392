DROP TABLE np_products;
