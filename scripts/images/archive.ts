// Packs layers into an image archive that every runtime reads: an OCI image layout with the index of docker's older archives.
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { debianArch } from '../bundle/debian.ts';
import type { Arch } from '../bundle/identity.ts';
import { date, type Entry, type Tree, tar } from './tar.ts';

export interface Layer {
  /** What it is, for `podman history`. */
  readonly comment: string;
  readonly packed: Buffer;
  /** Digest of the archive before it was packed. */
  readonly diffId: string;
}

export interface ImageDescription {
  /** As Kubernetes names it: localhost/kube-ipam:1.0.0. */
  readonly reference: string;
  readonly arch: Arch;
  readonly labels: Readonly<Record<string, string>>;
  readonly entrypoint: readonly string[];
}

const types = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar+gzip',
} as const;

export function layer(comment: string, tree: Tree): Layer {
  const archive = tar(tree);
  return { comment, packed: gzipSync(archive, { level: 6 }), diffId: digest(archive) };
}

/** The image as one tar archive (OCI image specification 1.0, "Image Layout"; docker-archive through its manifest.json). */
export function imageArchive(description: ImageDescription, layers: readonly Layer[]): Buffer {
  const config = json(configOf(description, layers));
  const manifest = json({
    schemaVersion: 2,
    mediaType: types.manifest,
    config: descriptor(types.config, config),
    layers: layers.map(({ packed }) => descriptor(types.layer, packed)),
    annotations: description.labels,
  });
  const { reference, arch } = description;
  const index = json({
    schemaVersion: 2,
    mediaType: types.index,
    manifests: [
      {
        ...descriptor(types.manifest, manifest),
        platform: { architecture: debianArch[arch], os: 'linux' },
        annotations: {
          'io.containerd.image.name': reference,
          'org.opencontainers.image.ref.name': reference.replace(/^.*:/, ''),
        },
      },
    ],
  });
  const blobs = [config, manifest, ...layers.map(({ packed }) => packed)];
  const docker = json([
    { Config: blob(config), RepoTags: [reference], Layers: layers.map(({ packed }) => blob(packed)) },
  ]);
  const file = (bytes: Buffer): Entry => ({ kind: 'file', bytes, mode: 0o644 });
  const folder: Entry = { kind: 'folder', mode: 0o755 };
  return tar(
    new Map([
      ['blobs', folder],
      ['blobs/sha256', folder],
      ...blobs.map(bytes => [blob(bytes), file(bytes)] as const),
      ['index.json', file(index)],
      ['manifest.json', file(docker)],
      ['oci-layout', file(json({ imageLayoutVersion: '1.0.0' }))],
    ]),
  );
}

function configOf({ arch, labels, entrypoint }: ImageDescription, layers: readonly Layer[]) {
  const created = date.toISOString();
  return {
    created,
    architecture: debianArch[arch],
    os: 'linux',
    config: {
      User: '0:0',
      Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
      Entrypoint: entrypoint,
      WorkingDir: '/',
      Labels: labels,
    },
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
    history: layers.map(({ comment }) => ({ created, created_by: 'scripts/images.ts', comment })),
  };
}

function descriptor(mediaType: string, bytes: Buffer) {
  return { mediaType, digest: digest(bytes), size: bytes.length };
}

function blob(bytes: Buffer): string {
  return `blobs/${digest(bytes).replace(':', '/')}`;
}

function digest(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
