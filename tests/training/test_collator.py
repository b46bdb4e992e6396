from llamafactory_dids.training.collator import COLUMNS, DOMAIN_COLUMN, KEY_COLUMN, SOURCE_COLUMN, DomainCollator


def inner(samples):
    assert not any(column in sample for sample in samples for column in COLUMNS)
    return {"input_ids": [sample["input_ids"] for sample in samples], "seen": [sorted(sample) for sample in samples]}


def sample(ids, domain):
    return {"input_ids": ids, DOMAIN_COLUMN: domain, KEY_COLUMN: "abc", SOURCE_COLUMN: "math"}


def test_the_batch_carries_the_domain_of_each_sample_in_order():
    batch = DomainCollator(inner)([sample([1], 4), sample([2, 3], 0), sample([5], 4)])
    assert batch["input_ids"] == [[1], [2, 3], [5]]
    assert batch[DOMAIN_COLUMN] == [4, 0, 4]


def test_the_hosts_collator_sees_none_of_our_columns():
    assert DomainCollator(inner)([sample([1], 0)])["seen"] == [["input_ids"]]


def test_samples_without_a_domain_are_collated_as_before():
    batch = DomainCollator(inner)([{"input_ids": [1]}, {"input_ids": [2]}])
    assert batch == inner([{"input_ids": [1]}, {"input_ids": [2]}])


def test_the_samples_themselves_are_left_as_they_were():
    samples = [sample([1], 2)]
    DomainCollator(inner)(samples)
    assert samples == [sample([1], 2)]
