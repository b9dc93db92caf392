DROP TABLE np_memberships;
DROP TABLE np_tenants;
DROP TYPE np_member_role;
DROP TYPE np_tenant_plan;
