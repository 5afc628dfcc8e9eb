// Runs the same tests on the embedded store and on a real etcd, each test on a store of its own.
import { afterAll, beforeAll, beforeEach, describe } from 'vitest';
import { Ground, type Site, type StoreKind, storeKinds } from './plugin.ts';

/** What a test finds: `site` is new for each. */
export interface Here {
  readonly kind: StoreKind;
  readonly ground: Ground;
  readonly site: Site;
}

export function onEachStore(tests: (here: Here) => void): void {
  describe.each(storeKinds)('%s', kind => {
    let ground: Ground | undefined;
    let site: Site | undefined;
    beforeAll(async () => {
      ground = await Ground.make(kind);
    });
    beforeEach(async () => {
      site = await ground!.site();
    });
    afterAll(() => ground?.[Symbol.asyncDispose]());
    tests({
      kind,
      get ground() {
        return ground!;
      },
      get site() {
        return site!;
      },
    });
  });
}
